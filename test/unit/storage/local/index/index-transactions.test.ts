import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import { IndexTransactions } from "../../../../../src/storage/local/index/index-transactions.ts";
import { openDatabase } from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

interface Locked {
  readonly write: () => Promise<void>;
  readonly rows: () => number;
  readonly lock: () => void;
  readonly unlock: () => void;
  /** The waits, and what happens after a number of them. */
  readonly waits: number[];
  readonly after: Map<number, () => void>;
}

/** Creates an index, and another connection that can lock it. Waits take no time. */
async function setUp(test: AfterTest): Promise<Locked> {
  const path = join(await tempDir(test), "index.sqlite");
  const database = openDatabase(path);
  const other = new Database(path);
  releaseAfter(test, () => {
    other.close();
    database.close();
  });
  const waits: number[] = [];
  const after = new Map<number, () => void>();
  const transactions = new IndexTransactions({
    database,
    onCorrupt: () => undefined,
    onChanged: () => undefined,
    onWritten: () => undefined,
    onFull: () => undefined,
    wait: async (delayMs) => {
      waits.push(delayMs);
      after.get(waits.length)?.();
    },
  });
  return {
    write: () =>
      transactions.write("write", () => {
        database.exec("INSERT INTO digests (digest) VALUES (randomblob(32))");
      }),
    rows: () =>
      database.prepare("SELECT count(*) FROM digests").pluck().get() as number,
    lock: () => void other.exec("BEGIN IMMEDIATE"),
    unlock: () => void other.exec("COMMIT"),
    waits,
    after,
  };
}

const sum = (numbers: readonly number[]): number =>
  numbers.reduce((total, one) => total + one, 0);

void describe("a write while another process holds the lock", () => {
  void it("succeeds once the lock is free", async (test) => {
    const { write, rows, lock, unlock, waits, after } = await setUp(test);
    lock();
    after.set(3, unlock);
    await write();
    assert.equal(rows(), 1);
    assert.equal(waits.length, 3);
  });

  void it("is retried; later writes fail immediately until the lock is free", async (test) => {
    const { write, rows, lock, unlock, waits, after } = await setUp(test);
    lock();
    await assert.rejects(write(), { name: "IndexError", message: /BUSY/ });
    const patience = sum(waits);
    assert(patience > 2_500 && patience < 3_500, `${patience} ms`);
    const before = waits.length;
    for (let i = 0; i < 5; i += 1) {
      await assert.rejects(write(), { message: /BUSY/ });
    }
    assert.equal(waits.length, before);
    unlock();
    await write();
    assert.equal(rows(), 1);
    lock();
    after.set(before + 2, unlock);
    await write();
    assert.equal(rows(), 2);
    assert.equal(waits.length, before + 2);
  });

  void it("fails together with other waiting writes", async (test) => {
    const { write, lock, waits } = await setUp(test);
    lock();
    const results = await Promise.allSettled([write(), write(), write()]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ["rejected", "rejected", "rejected"],
    );
    const before = waits.length;
    await assert.rejects(write());
    assert.equal(waits.length, before);
  });
});
