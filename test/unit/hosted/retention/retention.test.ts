import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type {
  HostedConfig,
  HostedRetentionConfig,
} from "../../../../src/config/config.ts";
import { Collection } from "../../../../src/hosted/collection.ts";
import type { HostedEvent } from "../../../../src/hosted/hosted.ts";
import { Retention } from "../../../../src/hosted/retention/retention.ts";
import { type Digest, digestOf } from "../../../../src/oci/digest.ts";
import {
  REFERRERS_TAG_SUFFIXES as SUFFIXES,
  referrersTag,
} from "../../../../src/oci/reference.ts";
import type { AuditEvent } from "../../../../src/telemetry/audit.ts";
import { keyOf, tag } from "../../../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { hostedConfig } from "../../../support/hosted-config.ts";
import { HostedStore } from "../../../support/hosted-store.ts";

const app = keyOf("local", "ci/app");
const web = keyOf("local", "ci/web");
const corp = keyOf("corp", "ci/app");
const DAY_MS = 86_400_000;

function retaining(
  over: Partial<HostedRetentionConfig> & Partial<HostedConfig> = {},
): HostedConfig {
  const { rules = [], untaggedMs = Infinity, ...config } = over;
  return hostedConfig({
    ...config,
    retention: { schedule: "0 3 * * *", rules, untaggedMs },
  });
}

const NEWEST_2 = {
  match: "ci/**",
  keepNewest: 2,
  keepPulledWithinMs: undefined,
  keepTags: ["v*"],
};
const PULLED_30D = {
  match: "ci/**",
  keepNewest: undefined,
  keepPulledWithinMs: 30 * DAY_MS,
  keepTags: [],
};

async function setUp(test: AfterTest, registries: readonly HostedConfig[]) {
  const store = await HostedStore.open(test);
  const events: HostedEvent[] = [];
  const audited: AuditEvent[] = [];
  const warnings: unknown[] = [];
  const logged: unknown[] = [];
  const retention = new Retention({
    index: store.index,
    registries: () => registries,
    clock: store.clock,
    log: {
      debug: () => undefined,
      info: (fields: unknown) => logged.push(fields),
      warn: (fields: unknown) => warnings.push(fields),
    },
    audit: { record: (event) => audited.push(event) },
    onEvent: (event) => events.push(event),
  });
  releaseAfter(test, () => retention.stop());
  const push = async (key: typeof app, name: string) => {
    store.clock.advance(1_000);
    return store.putManifest(key, `${key.upstream} ${key.repository} ${name}`, {
      tags: [name],
    });
  };
  const tags = (key: typeof app) => store.index.listTags(key, 1_000, undefined);
  return {
    store,
    retention,
    events,
    audited,
    warnings,
    logged,
    push,
    tags,
  };
}

void describe("retention", () => {
  void it("deletes what the rules do not keep, and reports each deletion", async (test) => {
    const scene = await setUp(test, [
      retaining({ rules: [NEWEST_2], immutableTags: ["**:fixed"] }),
      hostedConfig({ name: "corp" }),
    ]);
    const { retention, push, tags } = scene;
    for (const key of [app, web, corp]) {
      for (const name of ["fixed", "v1", "b1", "b2", "b3"])
        await push(key, name);
    }
    const { listed, count } = await retention.apply({ timed: "half" });
    assert.equal(count, 2);
    const reason = "ci/**: not among the newest 2; matches none of v*";
    assert.deepEqual(listed, [
      { ref: "local/ci/app:b1", reason },
      { ref: "local/ci/web:b1", reason },
    ]);
    for (const key of [app, web])
      assert.deepEqual(await tags(key), ["b2", "b3", "fixed", "v1"]);
    assert.equal((await tags(corp)).length, 5);
    assert.deepEqual(
      scene.events.map(({ action, tag: name, sender }) => [
        action,
        name,
        sender.user,
      ]),
      [
        ["delete", "b1", "retention"],
        ["delete", "b1", "retention"],
      ],
    );
    assert.deepEqual(
      scene.audited.map((event) =>
        event.event === "deleted" ? [event.client, event.reference] : [],
      ),
      [
        ["retention", "local/ci/app:b1"],
        ["retention", "local/ci/web:b1"],
      ],
    );
    assert.equal(scene.logged.length, 1);
    assert.deepEqual(scene.warnings, []);
  });

  void it("lists what it would delete, and deletes nothing, in a plan", async (test) => {
    const { retention, push, tags, store } = await setUp(test, [
      retaining({ rules: [NEWEST_2] }),
    ]);
    for (const name of ["b1", "b2", "b3", "b4"]) await push(app, name);
    const collection = new Collection({
      index: store.index,
      evictor: store.evictor(),
      retention,
      clock: store.clock,
      log: store.log,
    });
    const planned = await collection.collect({ isDryRun: true });
    assert.equal((await tags(app)).length, 4);
    const done = await collection.collect({ isDryRun: false });
    assert.deepEqual(done.deleted, planned.deleted);
    assert.equal(done.deletions, 2);
    assert.deepEqual(await tags(app), ["b3", "b4"]);
    await collection.stop();
  });

  void it("keeps a tag that was pulled lately", async (test) => {
    const { retention, push, tags, store } = await setUp(test, [
      retaining({ rules: [PULLED_30D] }),
    ]);
    for (const name of ["a", "b", "c", "d"]) await push(app, name);
    store.clock.advance(20 * DAY_MS);
    store.index.touchTag(app, tag("a"), store.clock.nowMs());
    await store.index.settleUses();
    store.clock.advance(11 * DAY_MS);
    await push(app, "e");
    await retention.apply({ timed: "all" });
    assert.deepEqual(await tags(app), ["a", "e"]);
  });

  void it("deletes manifests without a tag after their time, then what only they named after the same time", async (test) => {
    const { retention, store, events } = await setUp(test, [
      retaining({ untaggedMs: 7 * DAY_MS }),
    ]);
    const put = store.putManifest.bind(store, app);
    const isHeld = async (digest: Digest) =>
      (await store.index.getLinkedBlob(app, digest)) !== undefined;
    const image = await put("image of a deleted index");
    const referrer = await put("referrer", { subject: image });
    const index = await put("deleted index", { manifests: [image] });
    const kept = await put("image of a kept index");
    const others = [
      kept,
      await put("kept index", { manifests: [kept], tags: ["latest"] }),
      await put("referrer of a kept image", { subject: kept }),
    ];
    const moved = await put("moved", { tags: ["moved"] });
    store.clock.advance(6 * DAY_MS);
    const today = await put("of today");
    others.push(await put("moved to", { tags: ["moved"] }));
    const runs = [
      [1, [index]],
      [6, [moved, today]],
      [1, [image]],
      [7, [referrer]],
    ] as const;
    let count = 0;
    for (const [days, gone] of runs) {
      store.clock.advance(days * DAY_MS + 1);
      await retention.apply({ timed: "all" });
      count += gone.length;
      assert.equal(events.length, count);
      for (const digest of gone) assert.equal(await isHeld(digest), false);
      for (const digest of others) assert.equal(await isHeld(digest), true);
    }
  });

  void it("keeps pinned tags and pinned manifests without a tag", async (test) => {
    const { retention, store, push, tags } = await setUp(test, [
      retaining({
        rules: [{ ...NEWEST_2, keepNewest: 0, keepTags: [] }],
        untaggedMs: DAY_MS,
      }),
    ]);
    const { index, clock } = store;
    for (const name of ["pinned", "other"]) await push(app, name);
    const reference = { kind: "tag", tag: tag("pinned") } as const;
    assert.equal(await index.setPinned(app, reference, true), true);
    const [pinned, other] = [
      await store.putManifest(web, "pinned"),
      await store.putManifest(web, "other"),
    ];
    const root = { kind: "digest", digest: pinned } as const;
    assert.equal(await index.setPinned(web, root, true), true);
    clock.advance(DAY_MS + 1);
    await retention.apply({ timed: "all" });
    assert.deepEqual(await tags(app), ["pinned"]);
    assert.notEqual(await index.getLinkedBlob(web, pinned), undefined);
    assert.equal(await index.getLinkedBlob(web, other), undefined);
  });

  void it("neither counts nor deletes tags derived from the digest of a hosted manifest", async (test) => {
    const newest = { ...NEWEST_2, keepNewest: 1, keepTags: [] };
    const { retention, push, tags, store } = await setUp(test, [
      retaining({ rules: [newest], untaggedMs: 7 * DAY_MS }),
    ]);
    const old = await push(app, "old");
    const image = await push(app, "new");
    const derived = SUFFIXES.map((suffix) => `${referrersTag(image)}${suffix}`);
    const long = digestOf(Buffer.from("image"), "sha512");
    derived.push(referrersTag(long));
    for (const name of [...derived, `${referrersTag(old)}.sig`])
      await push(app, name);
    // Signatures in a repository of their own, which no rule covers.
    const signatures = keyOf("local", "signatures");
    await push(signatures, `${referrersTag(image)}.sig`);
    await retention.apply({ timed: "all" });
    assert.deepEqual(
      new Set(await tags(app)),
      new Set(["new", ...derived, `${referrersTag(old)}.sig`]),
    );
    store.clock.advance(7 * DAY_MS + 1);
    // The image of the deleted tag goes as well, and then its signature.
    await retention.apply({ timed: "all" });
    await retention.apply({ timed: "all" });
    assert.deepEqual(new Set(await tags(app)), new Set(["new", ...derived]));
    assert.equal((await tags(signatures)).length, 1);
  });

  void it("deletes tags derived from the digest of a deleted manifest, after the time of untagged manifests", async (test) => {
    const { retention, push, tags, store } = await setUp(test, [
      retaining({
        rules: [{ ...NEWEST_2, keepNewest: 1, keepTags: ["*.sbom"] }],
        untaggedMs: 7 * DAY_MS,
        immutableTags: ["**:*.att"],
      }),
      retaining({ name: "corp", rules: [{ ...NEWEST_2, keepNewest: 1 }] }),
    ]);
    for (const key of [app, web, corp]) {
      const image = await push(key, "image");
      for (const suffix of SUFFIXES)
        await push(key, `${referrersTag(image)}${suffix}`);
      if (key === web) continue;
      await store.index.deleteHostedManifest(key, image, () => false);
    }
    store.clock.advance(6 * DAY_MS);
    assert.equal((await retention.apply({ timed: "all" })).count, 0);
    store.clock.advance(DAY_MS + 1);
    const planned = await retention.plan();
    const { listed, count } = await retention.apply({ timed: "all" });
    assert.equal(count, 2);
    assert.deepEqual(listed, planned.listed);
    assert.deepEqual(
      new Set(listed.map(({ reason }) => reason)),
      new Set([
        "untagged: derived from a manifest that is gone, and older than 7d",
      ]),
    );
    const suffixes = (await tags(app)).map((name) => name.split(".")[1]);
    assert.deepEqual(suffixes, ["att", "sbom"]);
    assert.equal((await tags(web)).length, 5);
    assert.equal((await tags(corp)).length, 4);
  });

  void it("deletes at most half of a registry because of the time, unless an operator orders it", async (test) => {
    const { retention, push, tags, store, warnings } = await setUp(test, [
      retaining({ rules: [PULLED_30D], untaggedMs: 7 * DAY_MS }),
    ]);
    for (let number = 0; number < 10; number += 1)
      await push(number % 2 === 0 ? app : web, `t${number}`);
    for (let number = 0; number < 6; number += 1)
      await store.putManifest(app, `untagged ${number}`);
    const left = async () => [
      (await tags(app)).length + (await tags(web)).length,
      (await store.index.listUntaggedManifests(app, 99, undefined)).length,
    ];
    store.clock.advance(365 * DAY_MS);
    await retention.apply({ timed: "none" });
    assert.deepEqual(await left(), [10, 6]);
    await retention.apply({ timed: "half" });
    assert.equal((await left())[0], 5);
    assert.deepEqual(warnings.length, 2);
    await retention.apply({ timed: "all" });
    assert.equal((await left())[0], 0);
  });

  void it("does not delete a tag that was pushed again after it was read", async (test) => {
    const { retention, push, tags, store } = await setUp(test, [
      retaining({ rules: [{ ...NEWEST_2, keepNewest: undefined }] }),
    ]);
    await push(app, "b1");
    await push(app, "b2");
    const { index } = store;
    const original = index.listHostedTags.bind(index);
    let isPushed = false;
    index.listHostedTags = async (key, limit, last) => {
      const page = await original(key, limit, last);
      if (!isPushed) {
        isPushed = true;
        store.clock.advance(1_000);
        await store.putManifest(app, "another", { tags: ["b1"] });
      }
      return page;
    };
    const { count } = await retention.apply({ timed: "all" });
    assert.equal(count, 1);
    assert.deepEqual(await tags(app), ["b1"]);
  });

  void it("ends after the deletion in progress if it is stopped or aborted", async (test) => {
    const { retention, push, tags, store } = await setUp(test, [
      retaining({ rules: [{ ...NEWEST_2, keepNewest: 0 }] }),
    ]);
    for (let number = 0; number < 9; number += 1) await push(app, `b${number}`);
    const abort = new AbortController();
    const { index } = store;
    const original = index.deleteHostedTag.bind(index);
    index.deleteHostedTag = (...args) => {
      abort.abort();
      return original(...args);
    };
    const { count } = await retention.apply({
      timed: "all",
      signal: abort.signal,
    });
    assert.equal(count, 1);
    assert.equal((await tags(app)).length, 8);
    await retention.stop();
    assert.equal((await retention.apply({ timed: "all" })).count, 0);
    assert.equal((await tags(app)).length, 8);
  });

  void it("lets requests run between many small repositories", async (test) => {
    const { retention, push, store } = await setUp(test, [
      retaining({ rules: [PULLED_30D] }),
    ]);
    for (let number = 0; number < 20; number += 1) {
      await push(keyOf("local", `ci/app${number}`), "v1");
    }
    const { index } = store;
    const original = index.listHostedTags.bind(index);
    index.listHostedTags = (...args) => {
      // One read is shorter than a step of the walk; all of them are longer.
      const untilMs = performance.now() + 0.5;
      while (performance.now() < untilMs);
      return original(...args);
    };
    // The first run also prepares statements, which takes longer.
    await retention.plan();
    let hasRun = false;
    setImmediate(() => {
      hasRun = true;
    });
    await retention.plan();
    assert.equal(hasRun, true);
  });
});
