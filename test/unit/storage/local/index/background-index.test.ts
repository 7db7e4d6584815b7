import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import { BackgroundIndex } from "../../../../../src/storage/local/index/background-index.ts";
import { openDatabase } from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { ManualSchedule } from "../../../../support/manual-schedule.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const MIB = 1024 * 1024;
/** Includes the header, and the frame that restarts the log. */
const LIMIT = MIB + 64 * 1024;

async function setUp(test: AfterTest): Promise<{
  path: string;
  database: Database.Database;
  write: (mib: number) => void;
  logBytes: () => number;
  background: BackgroundIndex;
  schedule: ManualSchedule;
}> {
  const path = join(await tempDir(test), "index.sqlite");
  const database = openDatabase(path);
  const schedule = new ManualSchedule();
  const background = new BackgroundIndex(path, schedule.start);
  releaseAfter(test, async () => {
    await background.close();
    database.close();
  });
  database.exec("CREATE TABLE filler (bytes BLOB NOT NULL)");
  const insert = database.prepare("INSERT INTO filler VALUES (zeroblob(?))");
  const write = (mib: number): void => {
    for (let at = 0; at < mib; at += 1) insert.run(MIB);
    background.noteWrite();
  };
  const logBytes = (): number => statSync(`${path}-wal`).size;
  return { path, database, write, logBytes, background, schedule };
}

/** Runs the schedule until the log is cut, because a checkpoint runs in another thread. */
async function untilCut({
  logBytes,
  background,
  schedule,
}: {
  logBytes: () => number;
  background: BackgroundIndex;
  schedule: ManualSchedule;
}): Promise<void> {
  for (let left = 400; logBytes() > LIMIT; left -= 1) {
    assert.notEqual(left, 0, `${logBytes()} bytes`);
    background.noteWrite();
    while (schedule.delaysMs.includes(5_000)) schedule.runNext();
    await delay(25);
  }
  // The file is cut before its lock is released. The thread processes one message after another.
  await background.findDamage(true);
}

void describe("the log of the index", () => {
  void it("is cut to 1 MiB by a checkpoint while idle", async (test) => {
    const parts = await setUp(test);
    parts.write(12);
    assert.ok(parts.logBytes() > 12 * MIB);
    await untilCut(parts);
    parts.write(3);
    await untilCut(parts);
    const { n } = parts.database
      .prepare<[], { n: number }>("SELECT count(*) AS n FROM filler")
      .get() ?? { n: 0 };
    assert.equal(n, 15);
  });

  void it("grows while another process reads an old state, and is cut afterwards", async (test) => {
    const parts = await setUp(test);
    const reader = new Database(parts.path, { readonly: true });
    releaseAfter(test, () => {
      reader.close();
    });
    reader.exec("BEGIN");
    reader.prepare("SELECT count(*) FROM filler").get();
    parts.write(20);
    parts.background.noteWrite();
    while (parts.schedule.delaysMs.includes(5_000)) parts.schedule.runNext();
    // The thread processes one message after another, so the checkpoint has finished.
    assert.deepEqual(await parts.background.findDamage(true), []);
    assert.ok(parts.logBytes() > 20 * MIB);
    parts.write(1);
    reader.exec("COMMIT");
    await untilCut(parts);
  });
});
