import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { describe, it } from "node:test";
import type { ImageSummary } from "../../../src/images/images.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { Barrier } from "../../support/barrier.ts";
import {
  AMD64,
  buildImage,
  buildMultiArch,
  descriptorJson,
  manifestOf,
  type Platform,
  type TestImage,
  type TestIndex,
} from "../../support/image-builder.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import {
  startMirror,
  type TestMirror,
  type TestMirrorOptions,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const INDEX = buildMultiArch({
  seed: "children",
  layers: [2_000, 300],
  platforms: [
    AMD64,
    { os: "linux", architecture: "arm64", variant: "v8" },
    { os: "linux", architecture: "s390x" },
    // BuildKit's platform of an attestation.
    { os: "unknown", architecture: "unknown" },
  ],
});
/** Between two polls of background work. */
const POLL_MS = 5;
const NAME = "registry.example/a:1";

async function setUp(
  test: AfterTest,
  options: TestMirrorOptions = { childrenSchedule: "default" },
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addIndex("a", INDEX, "1");
  const mirror = await startMirror(test, [upstreamOf(upstream)], options);
  return { upstream, mirror };
}

/** Resolves when the manifests and configs of all images are in the cache. */
async function untilFetched(
  mirror: TestMirror,
  images: readonly TestImage[],
): Promise<void> {
  const wanted = images.flatMap(({ manifest, config }) => [
    manifest.digest,
    config.digest,
  ]);
  for (let left = 4_000; ; left -= 1) {
    const graph = await storedParts(mirror);
    const missing = wanted.filter((digest) => !graph.has(digest));
    if (missing.length === 0) return;
    assert.notEqual(left, 0, `${missing.join(", ")} were not fetched`);
    await delay(POLL_MS);
  }
}

async function storedParts(mirror: TestMirror): Promise<Set<Digest>> {
  const { body } = await mirror.operate("GET", `/images/${NAME}`);
  const { graph } = body as {
    readonly graph: readonly { digest: Digest; stored: boolean }[];
  };
  return new Set(graph.filter((one) => one.stored).map((one) => one.digest));
}

/** Builds an index of this many images with a config and one layer each. */
function wideIndex(count: number): TestIndex {
  return buildMultiArch({
    seed: `wide/${count}`,
    layers: [100],
    platforms: Array.from({ length: count }, (_, at): Platform => ({
      os: "linux",
      architecture: `cpu${at}`,
    })),
  });
}

void describe("the children of a pulled index", () => {
  void it("are cached with their configs but without their layers when the upstream is down", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await pullImage(mirror, "a", "1");
    await untilFetched(mirror, INDEX.images);
    await upstream.stop();
    await mirror.restart({ offline: true });
    const paths = INDEX.images.flatMap(({ manifest, config }) => [
      `/v2/a/manifests/${manifest.digest}`,
      `/v2/a/blobs/${config.digest}`,
    ]);
    for (const path of ["/v2/a/manifests/1", ...paths]) {
      const [head, got] = [await mirror.head(path), await mirror.get(path)];
      assert.deepEqual([head.status, got.status], [200, 200], path);
    }
    const [pulled, ...others] = INDEX.images;
    for (const { digest } of pulled?.layers ?? []) {
      assert.equal((await mirror.get(`/v2/a/blobs/${digest}`)).status, 200);
    }
    for (const { digest } of others.flatMap(({ layers }) => layers)) {
      assert.equal((await mirror.get(`/v2/a/blobs/${digest}`)).status, 404);
    }
  });

  void it("are fetched once, and each config by one GET", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await pullImage(mirror, "a", "1");
    await untilFetched(mirror, INDEX.images);
    await pullImage(mirror, "a", "1");
    await mirror.get(`/v2/a/manifests/${INDEX.manifest.digest}`);
    for (const { manifest, config, layers } of INDEX.images) {
      const asked = [manifest, config].map(({ digest }) =>
        upstream.count({ method: "GET", reference: digest }),
      );
      assert.deepEqual(asked, [1, 1]);
      const isFirst = manifest === INDEX.images[0]?.manifest;
      for (const { digest } of layers) {
        assert.equal(upstream.count({ reference: digest }), isFirst ? 1 : 0);
      }
    }
  });

  void it("are shown as platforms, of which only the pulled one is complete", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const inner = wideIndex(2);
    const single = buildImage({ seed: "single" });
    // One child without a platform, and one that is an index.
    const outer = manifestOf(
      {
        schemaVersion: 2,
        mediaType: inner.manifest.mediaType,
        manifests: [single, inner].map(({ manifest }) =>
          descriptorJson(manifest),
        ),
      },
      inner.manifest.mediaType,
    );
    upstream.content.addIndex("a", INDEX, "1");
    upstream.content.addIndex("b", inner);
    upstream.content.addImage("b", single);
    upstream.content.addManifest("b", outer, "1");
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      childrenSchedule: "default",
    });
    await pullImage(mirror, "a", "1");
    await mirror.get("/v2/b/manifests/1");
    const platforms = async (name: string) => {
      const { body } = await mirror.operate("GET", `/images/${name}`);
      return (body as Pick<ImageSummary, "platforms">).platforms.map(
        ({ platform, complete }) => `${platform} ${complete}`,
      );
    };
    assert.deepEqual(await platforms(NAME), [
      "linux/amd64 true",
      "linux/arm64/v8 false",
      "linux/s390x false",
    ]);
    assert.deepEqual(await platforms("registry.example/b:1"), []);
    await untilFetched(mirror, INDEX.images);
    assert.equal((await platforms(NAME)).length, 3);
    for (let left = 4_000; ; left -= 1) {
      const found = await platforms("registry.example/b:1");
      if (found.length === 3) {
        assert.deepEqual(found, [
          "linux/amd64 false",
          "linux/cpu0 false",
          "linux/cpu1 false",
        ]);
        break;
      }
      assert.notEqual(left, 0, found.join());
      await delay(POLL_MS);
    }
  });

  void it("belong to one image with the index, and do not change its time of use", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.get("/v2/a/manifests/1");
    const image = async () =>
      (await mirror.operate("GET", `/images/${NAME}`)).body as {
        readonly pulledAt: string;
      };
    const { pulledAt } = await image();
    mirror.clock.advance(5_000);
    await untilFetched(mirror, INDEX.images);
    assert.equal((await image()).pulledAt, pulledAt);
    const { body } = await mirror.operate("GET", "/images");
    const { images } = body as { readonly images: readonly { ref: string }[] };
    assert.deepEqual(
      images.map(({ ref }) => ref),
      [NAME],
    );
    const removed = await mirror.operate("DELETE", `/images/${NAME}`);
    assert.equal(removed.status, 200);
    const status = await mirror.operate("GET", "/status");
    const { storage } = status.body as { readonly storage: { bytes: number } };
    assert.equal(storage.bytes, 0);
  });

  void it("are fetched again after the index was evicted and pulled again", async (test) => {
    const { mirror } = await setUp(test);
    for (let round = 0; round < 2; round += 1) {
      await pullImage(mirror, "a", "1");
      await untilFetched(mirror, INDEX.images);
      await mirror.settled();
      const removed = await mirror.operate("DELETE", `/images/${NAME}`);
      assert.equal(removed.status, 200);
    }
  });

  void it("are at most 32, including those of nested indexes", async (test) => {
    const [inner, outer, flat] = [wideIndex(20), wideIndex(21), wideIndex(40)];
    const nested = manifestOf(
      {
        schemaVersion: 2,
        mediaType: inner.manifest.mediaType,
        manifests: [inner, ...outer.images].map(({ manifest }) =>
          descriptorJson(manifest),
        ),
      },
      inner.manifest.mediaType,
    );
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addIndex("a", inner);
    upstream.content.addIndex("a", outer);
    upstream.content.addManifest("a", nested, "1");
    upstream.content.addIndex("b", flat, "1");
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      childrenSchedule: "default",
    });
    // By digest, so that each index costs one request.
    await mirror.get(`/v2/a/manifests/${nested.digest}`);
    await mirror.get(`/v2/b/manifests/${flat.manifest.digest}`);
    const last = flat.images[31]?.config.digest ?? "";
    await upstream.arrived(1, { reference: last });
    await upstream.ended({ reference: last }, 1);
    await mirror.settled();
    for (const repository of ["a", "b"]) {
      const asked = upstream.count({ kind: "manifest", repository });
      assert.equal(asked, 1 + 32, repository);
    }
    assert.equal(upstream.count({ kind: "blob", repository: "b" }), 32);
  });

  void it("are fetched one at a time per upstream", async (test) => {
    const schedule = new ManualSchedule();
    const { upstream, mirror } = await setUp(test, {
      childrenSchedule: schedule.start,
    });
    const others = [3, 4, 5].map(wideIndex);
    for (const [at, index] of others.entries()) {
      upstream.content.addIndex(`other${at}`, index, "1");
    }
    const [, held] = INDEX.images;
    const barrier = new Barrier();
    const isHeld = { reference: held?.manifest.digest ?? "" };
    upstream.when(isHeld, { hold: { at: "headers", barrier } });
    await mirror.get("/v2/a/manifests/1");
    schedule.runNext();
    await upstream.arrived(1, isHeld);
    for (const at of others.keys()) {
      const { status } = await mirror.get(`/v2/other${at}/manifests/1`);
      assert.equal(status, 200);
    }
    assert.deepEqual(schedule.delaysMs, []);
    const children = others.flatMap(({ images }) =>
      images.map(({ manifest }) => manifest.digest),
    );
    const isChild = {
      where: ({ reference = "" }: { reference: string | undefined }) =>
        children.includes(reference as Digest),
    };
    assert.equal(upstream.count(isChild), 0);
    barrier.release();
    await upstream.arrived(children.length, isChild);
  });

  void it("of one upstream do not wait for those of another", async (test) => {
    const slow = await ScriptedUpstream.start(test);
    const quick = await ScriptedUpstream.start(test);
    const barrier = new Barrier();
    const [first] = INDEX.images;
    const isHeld = { reference: first?.manifest.digest ?? "" };
    slow.when(isHeld, { hold: { at: "headers", barrier } });
    for (const upstream of [slow, quick]) {
      upstream.content.addIndex("a", INDEX, "1");
    }
    const mirror = await startMirror(
      test,
      [
        upstreamOf(quick),
        upstreamOf(slow, { name: "slow.example", isDefault: false }),
      ],
      { childrenSchedule: "default" },
    );
    await mirror.get("/v2/slow.example/a/manifests/1");
    await slow.arrived(1, isHeld);
    await mirror.get("/v2/a/manifests/1");
    await untilFetched(mirror, INDEX.images);
    assert.equal(slow.count({ kind: "blob" }), 0);
    barrier.release();
  });

  void it("do not delay the close of the mirror", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const [, held] = INDEX.images;
    const barrier = new Barrier();
    const isHeld = { reference: held?.manifest.digest ?? "" };
    upstream.when(isHeld, { hold: { at: "headers", barrier } });
    await mirror.get("/v2/a/manifests/1");
    await upstream.arrived(1, isHeld);
    await mirror.close();
    barrier.release();
  });
});

const byDigest = (upstream: ScriptedUpstream): number =>
  upstream.count({
    kind: "manifest",
    where: ({ reference }) => reference?.startsWith("sha256:") === true,
  });

/** Pulls the index again, and runs the scheduled work. */
async function pullAgain(
  mirror: TestMirror,
  schedule: ManualSchedule,
): Promise<number> {
  const { status } = await mirror.get(
    `/v2/a/manifests/${INDEX.manifest.digest}`,
  );
  assert.equal(status, 200);
  const due = schedule.delaysMs.length;
  if (due > 0) schedule.runNext();
  return due;
}

function isOther({ msg }: { readonly msg?: unknown }): boolean {
  return msg !== "could not store a manifest";
}

/** Docker Hub's headers for its pull limit. */
const limitHeaders = (remaining: number) => ({
  headers: {
    "ratelimit-limit": "100;w=21600",
    "ratelimit-remaining": `${remaining};w=21600`,
  },
});

void describe("the children of a pulled index are not fetched", () => {
  void it("while less than half of the pull budget is left", async (test) => {
    const schedule = new ManualSchedule();
    const { upstream, mirror } = await setUp(test, {
      childrenSchedule: schedule.start,
    });
    upstream.when({ reference: "1" }, limitHeaders(49));
    await mirror.get("/v2/a/manifests/1");
    assert.deepEqual(schedule.delaysMs, []);
    upstream.clearRules();
    // The last count above half of the limit, and the first one below.
    const [first] = INDEX.images;
    upstream.when(
      { reference: first?.manifest.digest ?? "" },
      limitHeaders(49),
    );
    mirror.clock.advance(21_600_000);
    upstream.when({ method: "HEAD", reference: "1" }, limitHeaders(50));
    await mirror.get("/v2/a/manifests/1");
    assert.equal(schedule.delaysMs.length, 1);
    upstream.forgetRequests();
    schedule.runNext();
    for (let turn = 0; turn < 40; turn += 1) {
      await delay(POLL_MS);
      // Attempts that are held keep no state.
      assert.equal(await pullAgain(mirror, schedule), 0);
    }
    assert.deepEqual(
      upstream.requests().map(({ reference }) => reference),
      [first?.manifest.digest],
    );
    mirror.clock.advance(21_600_000);
    assert.equal(await pullAgain(mirror, schedule), 1);
    await untilFetched(mirror, INDEX.images);
  });

  void it("if clients send only HEAD for the index, cold or cached", async (test) => {
    const schedule = new ManualSchedule();
    const { mirror } = await setUp(test, { childrenSchedule: schedule.start });
    for (let asked = 0; asked < 3; asked += 1) {
      assert.equal((await mirror.head("/v2/a/manifests/1")).status, 200);
    }
    assert.deepEqual(schedule.delaysMs, []);
    assert.equal(await pullAgain(mirror, schedule), 1);
  });

  void it("while the mirror is offline", async (test) => {
    const schedule = new ManualSchedule();
    const { upstream, mirror } = await setUp(test, {
      childrenSchedule: schedule.start,
    });
    await mirror.get("/v2/a/manifests/1");
    await mirror.reload({ offline: true });
    upstream.forgetRequests();
    schedule.runNext();
    assert.equal(await pullAgain(mirror, schedule), 0);
    await mirror.reload({ offline: false });
    assert.equal(upstream.count(), 0);
    assert.equal(await pullAgain(mirror, schedule), 1);
    await untilFetched(mirror, INDEX.images);
  });

  void it("while the upstream is down", async (test) => {
    const schedule = new ManualSchedule();
    const { upstream, mirror } = await setUp(test, {
      childrenSchedule: schedule.start,
    });
    await mirror.get("/v2/a/manifests/1");
    upstream.forgetRequests();
    await upstream.stop();
    assert.equal((await mirror.get("/v2/a/manifests/2")).status, 502);
    schedule.runNext();
    assert.equal(await pullAgain(mirror, schedule), 0);
    assert.equal(byDigest(upstream), 0);
  });

  void it("if nothing can be stored", async (test) => {
    const schedule = new ManualSchedule();
    const { upstream, mirror } = await setUp(test, {
      childrenSchedule: schedule.start,
    });
    await mirror.loseStorage();
    await mirror.get("/v2/a/manifests/1");
    schedule.runNext();
    await mirror.get("/v2/a/manifests/1");
    await mirror.close();
    assert.equal(
      upstream.count({ kind: "blob" }) +
        INDEX.images
          .map(({ manifest }) => upstream.count({ reference: manifest.digest }))
          .reduce((sum, count) => sum + count),
      0,
    );
  });

  void it("for an hour after one could not be stored, even if the index is a hit", async (test) => {
    const schedule = new ManualSchedule();
    const { upstream, mirror } = await setUp(test, {
      childrenSchedule: schedule.start,
    });
    await mirror.get("/v2/a/manifests/1");
    await mirror.loseStorage();
    const [first] = INDEX.images;
    const reference = first?.manifest.digest ?? "";
    assert.equal(await pullAgain(mirror, schedule), 1);
    await upstream.arrived(1, { reference });
    for (let left = 4_000; mirror.log.every(isOther); left -= 1) {
      assert.notEqual(left, 0, JSON.stringify(mirror.log));
      await delay(POLL_MS);
    }
    mirror.clock.advance(3_599_999);
    assert.equal(await pullAgain(mirror, schedule), 0);
    assert.equal(upstream.count({ reference }), 1);
  });

  void it("for an hour after the upstream failed; an absent child is skipped", async (test) => {
    const schedule = new ManualSchedule();
    const { upstream, mirror } = await setUp(test, {
      childrenSchedule: schedule.start,
      logLevel: "debug",
    });
    const [absent, broken, ...others] = INDEX.images.map(
      ({ manifest }) => manifest.digest,
    );
    upstream.when({ reference: absent ?? "" }, { status: 404 });
    for (const reference of [broken ?? "", ...others]) {
      upstream.when({ reference }, { status: 500 });
    }
    await mirror.get("/v2/a/manifests/1");
    schedule.runNext();
    const failures = () =>
      mirror.log.filter(({ msg }) =>
        String(msg).startsWith("could not fetch a child of an index"),
      );
    for (let left = 4_000; failures().length < 3; left -= 1) {
      assert.notEqual(left, 0, JSON.stringify(mirror.log));
      await delay(POLL_MS);
    }
    upstream.clearRules();
    upstream.forgetRequests();
    mirror.clock.advance(3_599_999);
    assert.equal(await pullAgain(mirror, schedule), 0);
    assert.equal(upstream.count(), 0);
    mirror.clock.advance(1);
    assert.equal(await pullAgain(mirror, schedule), 1);
    await untilFetched(mirror, INDEX.images);
  });
});
