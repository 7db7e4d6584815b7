import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import type Database from "better-sqlite3";
import { IndexHealth } from "../../../../../../src/storage/local/upkeep/index-health.ts";
import type { MetadataIndex } from "../../../../../../src/storage/metadata-index.ts";
import { openSqliteIndex } from "../../../../../../src/storage/local/index/open-sqlite-index.ts";
import { TagListRows } from "../../../../../../src/storage/local/index/documents/tag-list-rows.ts";
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

const KEYS = Array.from({ length: 10 }, (_, at) => keyOf("quay.io", `a/${at}`));

/** Creates ten repositories with a blob each. */
async function setUp(
  test: AfterTest,
): Promise<{ index: MetadataIndex; database: Database.Database }> {
  const { index, database } = openSqliteIndex({
    path: join(await tempDir(test), "index.sqlite"),
    clock: new FakeClock(),
  });
  releaseAfter(test, () => index.close());
  for (const key of KEYS) await index.recordBlob(key, blob(named("blob"), 1));
  return { index, database };
}

void describe("the tag lists of an index", () => {
  for (const [name, bounds] of [
    ["number", { lists: 3, bytes: 1_000, listBytes: 100 }],
    ["bytes", { lists: 100, bytes: 30, listBytes: 100 }],
  ] as const) {
    void it(`are bounded in ${name}: the oldest are dropped`, async (test) => {
      const { index, database } = await setUp(test);
      const rows = new TagListRows(database, bounds);
      for (const [at, key] of KEYS.entries()) {
        const row = { body: Buffer.alloc(10), fetchedAtMs: at };
        assert.equal(rows.put(key, row), true);
      }
      const kept = KEYS.filter((key) => rows.get(key) !== undefined);
      assert.deepEqual(kept, KEYS.slice(7));
      assert.equal((await index.totals()).listBytes, 30);
      const { kept: sums, counted } = new IndexHealth(database).compareTotals();
      assert.deepEqual(sums, counted);
    });
  }

  void it("are dropped if the new one is too long", async (test) => {
    const { index, database } = await setUp(test);
    const bounds = { lists: 10, bytes: 1_000, listBytes: 100 };
    const rows = new TagListRows(database, bounds);
    const [key] = KEYS;
    assert(key !== undefined);
    assert.equal(
      rows.put(key, { body: Buffer.alloc(9), fetchedAtMs: 1 }),
      true,
    );
    const long = { body: Buffer.alloc(101), fetchedAtMs: 2 };
    assert.equal(rows.put(key, long), false);
    assert.equal(rows.get(key), undefined);
    assert.equal((await index.totals()).listBytes, 0);
  });
});
