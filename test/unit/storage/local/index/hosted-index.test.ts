import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openSqliteIndex } from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import { IndexHealth } from "../../../../../src/storage/local/upkeep/index-health.ts";
import type { HostedManifestRecord } from "../../../../../src/storage/hosted-index.ts";
import type { MetadataIndex } from "../../../../../src/storage/metadata-index.ts";
import type { Digest } from "../../../../../src/oci/digest.ts";
import {
  blob,
  keyOf,
  layer,
  named,
  tag,
} from "../../../../contract/metadata-index-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { writeHostedTags } from "../../../../support/many-hosted-tags.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const crowded = keyOf("local", "team/crowded");
const alpine = keyOf("docker.io", "library/alpine");
const QUOTA = { maxBytes: 1e15, reservedBytes: 0 };
const CONDITIONS = { quota: QUOTA, isImmutable: () => false };
const NOTHING: ReadonlySet<Digest> = new Set();

async function open(test: AfterTest) {
  const path = join(await tempDir(test), "index.sqlite");
  const opened = openSqliteIndex({ path, clock: new FakeClock() });
  releaseAfter(test, () => opened.index.close());
  return { ...opened, path };
}

function record(text: string, layers: readonly string[]): HostedManifestRecord {
  return {
    digest: named(text),
    sizeBytes: 1_000,
    storedAtMs: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    children: layers.map((each) => layer(each)),
    subject: undefined,
    artifactType: undefined,
    annotations: undefined,
  };
}

/** The bytes that this process has read from files. */
function readBytes(): number {
  const io = readFileSync("/proc/self/io", "latin1");
  return Number(/^rchar: (\d+)$/m.exec(io)?.[1]);
}

interface Cost {
  readonly rowsWritten: number;
  readonly pagesRead: number;
}

/** What requests of a repository with this many tags read and write, with nothing in SQLite's cache. */
async function costs(
  test: AfterTest,
  tags: number,
): Promise<Readonly<Record<string, Cost>>> {
  const { index, database } = await open(test);
  writeHostedTags(database, tags);
  database.pragma("wal_checkpoint(TRUNCATE)");
  database.pragma("cache_size = 1");
  const ownBytes = readBytes();
  const perMeasure = readBytes() - ownBytes;
  const measure = async (work: () => Promise<unknown>): Promise<Cost> => {
    database.pragma("shrink_memory");
    const changes = () =>
      database.prepare("SELECT total_changes()").pluck().get() as number;
    const before = { changes: changes(), bytes: readBytes() };
    await work();
    const bytes = readBytes() - before.bytes - perMeasure;
    return {
      rowsWritten: changes() - before.changes,
      pagesRead: Math.round(bytes / 4_096),
    };
  };
  const middle = `t${String(Math.floor(tags / 2)).padStart(7, "0")}`;
  return {
    upload: await measure(() =>
      index.recordHostedBlob(
        crowded,
        { digest: named("layer"), sizeBytes: 10, storedAtMs: 2 },
        QUOTA,
      ),
    ),
    claim: await measure(() =>
      index.claimHostedBlob(crowded, named("layer"), 3),
    ),
    push: await measure(() =>
      index.putHostedManifest(
        crowded,
        record("pushed", ["layer"]),
        [tag("new"), tag(middle)],
        CONDITIONS,
      ),
    ),
    page: await measure(() => index.listTags(crowded, 100, middle)),
    "page with times": await measure(() =>
      index.listHostedTags(crowded, 100, tag(middle)),
    ),
    untagged: await measure(() =>
      index.listUntaggedManifests(crowded, 100, undefined),
    ),
    "delete a tag": await measure(() =>
      index.deleteHostedTag(crowded, tag("new"), () => false),
    ),
    "delete a manifest": await measure(() =>
      index.deleteHostedManifest(crowded, named("pushed"), () => false),
    ),
    referrers: await measure(() =>
      index.listHostedReferrers(crowded, named("pushed"), {
        artifactTypes: [],
        limit: 100,
        last: undefined,
      }),
    ),
    images: await measure(() => index.listImages(100, undefined)),
    collection: await measure(() => index.dropUnneededLinks(10, 100)),
    "oldest roots": await measure(() => index.listOldestRoots(100, undefined)),
  };
}

void describe("hosted repositories in SQLite", () => {
  void it("cost the same with a thousand and with a hundred thousand tags", async (test) => {
    const few = await costs(test, 1_000);
    const many = await costs(test, 100_000);
    for (const [name, { rowsWritten, pagesRead }] of Object.entries(many)) {
      const before = few[name];
      assert.equal(rowsWritten, before?.rowsWritten, name);
      // A page holds some hundred rows; each tree is at most two levels deeper.
      const limit = 3 * (before?.pagesRead ?? 0) + 30;
      assert.ok(pagesRead <= limit, `${name}: ${pagesRead} pages of ${limit}`);
    }
  });

  void it("examine the shorter of two lists for a layer that many images name", async (test) => {
    const { index, database } = await open(test);
    writeHostedTags(database, 20_000);
    const shared = database
      .prepare<[], Buffer>("SELECT digest FROM digests WHERE id = 1")
      .pluck()
      .get();
    assert(shared !== undefined);
    const digest = `sha256:${shared.toString("hex")}` as Digest;
    const few = keyOf("local", "team/few");
    for (const [name, layers] of [
      ["kept", [digest]],
      ["dropped", []],
    ] as const) {
      const key = keyOf("local", `team/${name}`);
      await index.mountHostedBlob(key, digest, crowded, 1, QUOTA);
      await index.putHostedManifest(
        key,
        {
          ...record(name, []),
          children: layers.map((each) => ({ ...layer(""), digest: each })),
        },
        [],
        CONDITIONS,
      );
      await index.claimHostedBlob(key, digest, 2);
    }
    await index.mountHostedBlob(few, digest, crowded, 1, QUOTA);
    assert.deepEqual(await index.dropUnneededLinks(9, 9), {
      links: 2,
      isEnd: true,
    });
    const linked = async (name: string) =>
      (await index.getLinkedBlob(keyOf("local", name), digest)) !== undefined;
    assert.equal(await linked("team/kept"), true);
    assert.equal(await linked("team/dropped"), false);
    assert.equal(await linked("team/few"), false);
    assert.equal(await linked("team/crowded"), true);
  });

  void it("remove blobs first whose removal a crash interrupted, even if a row names them", async (test) => {
    const { index, path } = await open(test);
    for (const name of ["a", "b"]) {
      await index.recordBlob(alpine, blob(named(name), 10));
      await index.dropRoot(alpine, { kind: "digest", digest: named(name) });
    }
    const listed = await index.listCondemned(1, NOTHING);
    assert.deepEqual(listed, [{ digest: named("a"), sizeBytes: 10 }]);
    await index.close();
    const again = openSqliteIndex({ path, clock: new FakeClock() });
    releaseAfter(test, () => again.index.close());
    const mount = (text: string) =>
      again.index.mountHostedBlob(crowded, named(text), alpine, 1, QUOTA);
    assert.equal(await mount("a"), "absent");
    assert.equal(await mount("b"), "stored");
    await again.index.recordBlob(alpine, {
      ...blob(named("m"), 10),
      manifest: {
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        children: [layer("a")],
        subject: undefined,
      },
    });
    assert.deepEqual(await again.index.listCondemned(9, NOTHING), listed);
    await again.index.forgetCondemned([named("a")]);
    assert.deepEqual(await again.index.listCondemned(9, NOTHING), []);
    assert.equal(await again.index.getBlob(named("a")), undefined);
  });

  void it("list a blob for removal again if its row could not be dropped", async (test) => {
    const { index, database } = await open(test);
    await index.recordBlob(alpine, blob(named("a"), 10));
    await index.dropRoot(alpine, { kind: "digest", digest: named("a") });
    const listed = await index.listCondemned(9, NOTHING);
    database.pragma("query_only = ON");
    await assert.rejects(index.forgetCondemned([named("a")]));
    database.pragma("query_only = OFF");
    assert.deepEqual(await index.listCondemned(9, NOTHING), listed);
    await index.forgetCondemned([named("a")]);
    assert.deepEqual(await index.listCondemned(9, NOTHING), []);
  });

  void it("keep rows in memory when a client claims a blob", async (test) => {
    const { index } = await open(test);
    await fill(index);
    const row = await index.getLinkedBlob(alpine, named("x"));
    assert(row !== undefined);
    await index.claimHostedBlob(crowded, named("a"), 9);
    assert.equal(index.recallLinkedBlob(alpine, named("x")), row);
    await index.unlinkHostedBlob(crowded, named("a"), () => false);
    assert.equal(index.recallLinkedBlob(alpine, named("x")), undefined);
  });

  void it("report no change to the journal for a push that changes nothing", async (test) => {
    const { index, database } = await open(test);
    await fill(index);
    const push = () =>
      index.putHostedManifest(
        crowded,
        record("m", ["a"]),
        [tag("latest")],
        CONDITIONS,
      );
    await push();
    const rows = () => database.prepare("SELECT * FROM tags").all();
    const before = rows();
    await push();
    assert.deepEqual(rows(), before);
  });

  void it("are repaired by a scrub of the index", async (test) => {
    const { index, database } = await open(test);
    await fill(index);
    await index.putHostedManifest(
      crowded,
      record("m", ["a"]),
      [tag("latest")],
      CONDITIONS,
    );
    const health = new IndexHealth(database);
    const rows = () =>
      [
        "hosted_registries",
        "hosted_links",
        "hosted_manifests",
        "hosted_content",
      ].map((table) => database.prepare(`SELECT * FROM ${table}`).all());
    const intact = rows();
    const ahead = 4e12;
    database.exec(`
      PRAGMA foreign_keys = OFF;
      UPDATE hosted_registries SET bytes = bytes + 1;
      UPDATE hosted_content SET links = links + 1;
      INSERT INTO hosted_links (blob_id, repository_id) VALUES (999, 999);
      INSERT INTO hosted_manifests (repository_id, digest, blob_id, pushed_at_ms)
        VALUES (999, x'00', 998, 1);
      INSERT INTO uploads VALUES ('upload-of-no-repository', 999, 'sha256', 1, 1);
      PRAGMA foreign_keys = ON;
    `);
    assert.deepEqual(
      new Set(health.findBrokenReferences()),
      new Set(["hosted_links", "hosted_manifests", "uploads"]),
    );
    health.deleteBrokenReferences();
    assert.deepEqual(health.findBrokenReferences(), []);
    const { kept, counted } = health.compareTotals();
    assert.equal(kept.hostedBytes, counted.hostedBytes + 1);
    assert.notEqual(kept.hostedLinks, counted.hostedLinks);
    health.putTotals(counted);
    assert.deepEqual(rows(), intact);
    await index.claimHostedBlob(crowded, named("a"), ahead);
    assert.equal(health.countTimesAfter(ahead - 1), 1);
    health.capTimes(5);
    assert.deepEqual(await index.dropUnneededLinks(6, 9), {
      links: 0,
      isEnd: true,
    });
    assert.equal(health.countTimesAfter(5), 0);
  });

  void it("leave no row behind when a repository was emptied", async (test) => {
    const { index, database } = await open(test);
    const count = () =>
      database
        .prepare<[], string>(
          `SELECT name FROM sqlite_schema WHERE type = 'table'
             AND name NOT IN ('totals', 'state', 'media_types', 'hosted_registries')`,
        )
        .pluck()
        .all()
        .map((table) => [
          table,
          database.prepare(`SELECT count(*) FROM "${table}"`).pluck().get(),
        ]);
    const empty = count();
    for (const text of ["a", "b"]) {
      await index.recordHostedBlob(
        crowded,
        { digest: named(text), sizeBytes: 10, storedAtMs: 1 },
        QUOTA,
      );
    }
    const signature = {
      ...record("signature", ["b"]),
      subject: named("m"),
      artifactType: "application/signature",
      annotations: { by: "test" },
    };
    await index.putHostedManifest(crowded, signature, [], CONDITIONS);
    const m = record("m", ["a"]);
    await index.putHostedManifest(crowded, m, [tag("latest")], CONDITIONS);
    for (const text of ["m", "signature"]) {
      await index.deleteHostedManifest(crowded, named(text), () => false);
    }
    await index.dropUnneededLinks(9, 99);
    for (;;) {
      const found = await index.listCondemned(9, NOTHING);
      if (found.length === 0) break;
      await index.forgetCondemned(found.map(({ digest }) => digest));
    }
    await index.dropUnrooted();
    assert.deepEqual(count(), empty);
    assert.deepEqual(await index.listHostedRegistries(), []);
    assert.deepEqual(database.pragma("foreign_key_check"), []);
  });
});

async function fill(index: MetadataIndex): Promise<void> {
  await index.recordBlob(alpine, blob(named("x"), 10));
  await index.recordHostedBlob(
    crowded,
    { digest: named("a"), sizeBytes: 10, storedAtMs: 1 },
    QUOTA,
  );
}
