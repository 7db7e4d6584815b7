import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import type Database from "better-sqlite3";
import {
  IndexError,
  type MetadataIndex,
} from "../../../../../src/storage/metadata-index.ts";
import { openSqliteIndex } from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import {
  keyOf,
  layer,
  manifestOf,
  named,
} from "../../../../contract/metadata-index-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const KEY = keyOf("quay.io", "a/b");

async function open(
  test: AfterTest,
): Promise<{ index: MetadataIndex; database: Database.Database }> {
  const opened = openSqliteIndex({
    path: join(await tempDir(test), "index.sqlite"),
    clock: new FakeClock(),
  });
  releaseAfter(test, () => opened.index.close());
  return opened;
}

function countRows(database: Database.Database, table: string): number {
  return Number(
    database.prepare(`SELECT count(*) FROM ${table}`).pluck().get(),
  );
}

void describe("names in the index", () => {
  void it("of digests are deleted with the intents and manifests that name them", async (test) => {
    const { index, database } = await open(test);
    await index.beginFill(KEY, { digest: named("intent"), sizeBytes: 1 });
    await index.dropIntent(named("intent"));
    assert.equal(countRows(database, "digests"), 0);
    const manifest = manifestOf(named("manifest"), [layer("x"), layer("y")]);
    const record = {
      ...manifest,
      manifest: {
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        children: manifest.manifest?.children ?? [],
        subject: named("subject"),
      },
    };
    await index.recordBlob(KEY, record);
    assert.equal(countRows(database, "digests"), 4);
    await index.forgetBlob(manifest.digest);
    assert.equal(countRows(database, "digests"), 0);
    await index.recordBlob(KEY, record);
    const reference = { kind: "digest", digest: manifest.digest } as const;
    assert.equal(await index.dropRoot(KEY, reference), true);
    await index.forgetCondemned([manifest.digest]);
    assert.equal(countRows(database, "digests"), 0);
  });

  void it("of media types are bounded: children become octet streams, manifests are rejected", async (test) => {
    const { index, database } = await open(test);
    const children = Array.from({ length: 10_000 }, (_, at) => ({
      ...layer(`${at}`),
      mediaType: `application/vnd.x${at}`,
    }));
    await index.recordBlob(KEY, manifestOf(named("many types"), children));
    assert.ok(countRows(database, "media_types") <= 2_001);
    const last = await index.findDescriptor(KEY, named("9999"));
    assert.equal(last?.mediaType, "application/octet-stream");
    database.exec(
      "WITH RECURSIVE n (at) AS (SELECT 3000 UNION ALL SELECT at + 1 FROM n WHERE at < 10000) INSERT INTO media_types (id, name) SELECT at, 'x/' || at FROM n",
    );
    const record = (mediaType: string) =>
      index.recordBlob(KEY, {
        digest: named(mediaType),
        sizeBytes: 1,
        storedAtMs: 1,
        manifest: { mediaType, children: [], subject: undefined },
      });
    await assert.rejects(record("application/vnd.one.more"), IndexError);
    await record("application/vnd.oci.image.manifest.v1+json");
  });
});
