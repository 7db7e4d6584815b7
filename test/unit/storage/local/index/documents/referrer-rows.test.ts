import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import type Database from "better-sqlite3";
import type { MetadataIndex } from "../../../../../../src/storage/metadata-index.ts";
import { openSqliteIndex } from "../../../../../../src/storage/local/index/open-sqlite-index.ts";
import { ReferrerRows } from "../../../../../../src/storage/local/index/documents/referrer-rows.ts";
import {
  blob,
  keyOf,
  named,
} from "../../../../../contract/metadata-index-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../../support/after-test.ts";
import { FakeClock } from "../../../../../support/fake-clock.ts";
import { tempDir } from "../../../../../support/temp-dir.ts";
import type { RepositoryKey } from "../../../../../../src/oci/reference.ts";

const KEY: RepositoryKey = keyOf("quay.io", "a/b");

/** Creates ten linked blobs. */
async function setUp(
  test: AfterTest,
): Promise<{ index: MetadataIndex; database: Database.Database }> {
  const { index, database } = openSqliteIndex({
    path: join(await tempDir(test), "index.sqlite"),
    clock: new FakeClock(),
  });
  releaseAfter(test, () => index.close());
  for (let at = 0; at < 10; at += 1) {
    await index.recordBlob(KEY, blob(named(`subject ${at}`), 1));
  }
  return { index, database };
}

void describe("the referrers lists of an index", () => {
  for (const [name, bounds] of [
    ["number", { lists: 3, bytes: 1_000, listBytes: 100 }],
    ["bytes", { lists: 100, bytes: 30, listBytes: 100 }],
  ] as const) {
    void it(`are bounded in ${name}: the oldest are dropped`, async (test) => {
      const { index, database } = await setUp(test);
      const rows = new ReferrerRows(database, bounds);
      for (let at = 0; at < 10; at += 1) {
        const row = { body: Buffer.alloc(10), verifiedAtMs: at };
        assert.equal(rows.put(KEY, named(`subject ${at}`), row), true);
      }
      const kept = Array.from({ length: 10 }, (_, at) => at).filter(
        (at) => rows.get(KEY, named(`subject ${at}`)) !== undefined,
      );
      assert.deepEqual(kept, [7, 8, 9]);
      assert.equal((await index.totals()).listBytes, 30);
    });
  }

  void it("are rejected if one is too long", async (test) => {
    const { index, database } = await setUp(test);
    const bounds = { lists: 10, bytes: 1_000, listBytes: 100 };
    const rows = new ReferrerRows(database, bounds);
    const row = { body: Buffer.alloc(101), verifiedAtMs: 1 };
    assert.equal(rows.put(KEY, named("subject 1"), row), false);
    assert.equal((await index.totals()).listBytes, 0);
  });
});
