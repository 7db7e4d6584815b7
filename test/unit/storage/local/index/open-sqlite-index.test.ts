import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import Database from "better-sqlite3";
import { IndexError } from "../../../../../src/storage/metadata-index.ts";
import { SCHEMA_VERSION } from "../../../../../src/storage/local/index/migrations.ts";
import {
  openDatabase,
  openSqliteIndex,
  type OpenSqliteIndexOptions,
  type OpenedSqliteIndex,
} from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import {
  blob,
  keyOf,
  layer,
  manifestOf,
  named,
  tag,
} from "../../../../contract/metadata-index-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { ManualSchedule } from "../../../../support/manual-schedule.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const alpine = keyOf("docker.io", "library/alpine");
const latest = tag("latest");
const manifest = named("manifest");

/** Opens the index at a path; closed after the test. */
function open(
  test: AfterTest,
  path: string,
  options: Partial<OpenSqliteIndexOptions> = {},
): OpenedSqliteIndex {
  const opened = openSqliteIndex({ path, clock: new FakeClock(), ...options });
  releaseAfter(test, () => opened.index.close());
  return opened;
}

/** Creates an index with one image, and closes it. */
async function writeIndex(test: AfterTest): Promise<string> {
  const path = join(await tempDir(test), "index.sqlite");
  const { index } = open(test, path);
  await index.recordBlob(alpine, manifestOf(manifest, [layer("layer")]));
  await index.putTag(alpine, latest, manifest, 1);
  await index.close();
  return path;
}

/** Reads one value by another connection. */
function readValue(test: AfterTest, path: string, sql: string): unknown {
  const database = new Database(path);
  releaseAfter(test, () => {
    database.close();
  });
  return database.prepare(sql).pluck().get();
}

void describe("opening the SQLite index", () => {
  void it("keeps recorded rows, in a file that other users can't read", async (test) => {
    const path = await writeIndex(test);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const { index, movedAsideTo, isTemporary } = open(test, path);
    assert.equal(movedAsideTo, undefined);
    assert.equal(isTemporary, false);
    assert.equal((await index.getTag(alpine, latest))?.digest, manifest);
    assert.equal((await index.totals()).tags, 1);
  });

  void it("sets the pragmas for durability and bounds", async (test) => {
    const database = openDatabase(join(await tempDir(test), "index.sqlite"));
    releaseAfter(test, () => {
      database.close();
    });
    const settings = {
      journal_mode: "wal",
      synchronous: 1,
      foreign_keys: 1,
      mmap_size: 0,
      journal_size_limit: 1024 * 1024,
      busy_timeout: 5,
      user_version: SCHEMA_VERSION,
    };
    for (const [name, value] of Object.entries(settings)) {
      assert.equal(database.pragma(name, { simple: true }), value, name);
    }
  });

  void it("rejects an index of a newer version, and leaves it unchanged", async (test) => {
    const path = await writeIndex(test);
    readValue(test, path, "SELECT 1");
    const newer = new Database(path);
    newer.pragma("user_version = 99");
    newer.close();
    assert.throws(
      () => open(test, path),
      /got index schema 99; expected at most \d+:/,
    );
    assert.equal(readValue(test, path, "SELECT count(*) FROM tags"), 1);
    assert.deepEqual(
      readdirSync(join(path, "..")).filter((name) => name.includes("corrupt")),
      [],
    );
  });

  for (const { name, damage, isSuspect } of [
    {
      name: "is no database",
      damage: Buffer.from(
        "not a database, but long enough to be one".repeat(9),
      ),
      isSuspect: false,
    },
    { name: "is damaged inside", damage: undefined, isSuspect: true },
  ]) {
    void it(`moves a file aside that ${name}, and starts a new one`, async (test) => {
      const path = await writeIndex(test);
      if (damage !== undefined) writeFileSync(path, damage);
      else damageTags(path);
      const clock = new FakeClock(Date.UTC(2026, 9, 7, 12, 30, 5));
      const { index, movedAsideTo } = open(test, path, { clock, isSuspect });
      assert.equal(movedAsideTo, `${path}.corrupt-20261007T123005Z`);
      assert.equal((await index.totals()).tags, 0);
      await index.recordBlob(alpine, blob(named("new"), 1));
      assert(
        readdirSync(join(path, "..")).includes(
          "index.sqlite.corrupt-20261007T123005Z",
        ),
      );
    });
  }

  void it("reports damage that is found while it is open, and rejects", async (test) => {
    const path = await writeIndex(test);
    damageTags(path);
    const found: unknown[] = [];
    const { index } = open(test, path, {
      onCorrupt: (error) => found.push(error),
    });
    await assert.rejects(index.getTag(alpine, latest), IndexError);
    assert.equal(found.length, 1);
  });

  void it("rejects while another process locks the file, and recovers", async (test) => {
    const path = await writeIndex(test);
    const { index } = open(test, path);
    const other = new Database(path);
    releaseAfter(test, () => {
      other.close();
    });
    other.exec("BEGIN IMMEDIATE");
    await assert.rejects(index.recordBlob(alpine, blob(named("late"), 1)), {
      name: "IndexError",
      message: "recordBlob: SQLITE_BUSY",
    });
    assert.equal((await index.getTag(alpine, latest))?.digest, manifest);
    other.exec("ROLLBACK");
    await index.recordBlob(alpine, blob(named("late"), 1));
    assert.equal((await index.totals()).blobs, 2);
  });

  void it("records a blob completely or not at all", async (test) => {
    const path = await writeIndex(test);
    const { index } = open(test, path);
    await assert.rejects(
      index.recordBlob(
        alpine,
        manifestOf(named("bad"), [
          layer("good"),
          { ...layer("bad"), sizeBytes: Number.NaN },
        ]),
      ),
      IndexError,
    );
    assert.equal(await index.getBlob(named("bad")), undefined);
    assert.equal(await index.findDescriptor(alpine, named("good")), undefined);
    assert.equal((await index.totals()).blobs, 1);
  });

  void it("writes the last time of each use in batches, and at the close", async (test) => {
    const path = await writeIndex(test);
    const schedule = new ManualSchedule();
    const { index } = open(test, path, { schedule: schedule.start });
    const usedAtMs = (table: string): unknown =>
      readValue(test, path, `SELECT used_at_ms FROM ${table}`);
    index.touchBlob(manifest, 70_000);
    index.touchTag(alpine, latest, 80_000);
    index.touchTag(alpine, latest, 75_000);
    assert.equal(usedAtMs("blobs"), 1);
    schedule.runNext();
    assert.equal(usedAtMs("blobs"), 70_000);
    assert.equal(usedAtMs("tags"), 80_000);
    index.touchBlob(manifest, 60_000);
    schedule.runNext();
    assert.equal(usedAtMs("blobs"), 70_000);
    index.touchBlob(manifest, 90_000);
    await index.close();
    assert.equal(usedAtMs("blobs"), 90_000);
    assert.deepEqual(schedule.delaysMs, []);
  });

  void it("reports a write only if a row was changed", async (test) => {
    const path = await writeIndex(test);
    let writes = 0;
    const { index } = open(test, path, { onWritten: () => (writes += 1) });
    await index.getTag(alpine, latest);
    // An idle mirror does this periodically; it must not start the worker.
    assert.deepEqual(await index.listCondemned(10, new Set()), []);
    await index.link(alpine, named("absent"));
    assert.equal(writes, 0);
    assert.notEqual(index.recallTag(alpine, latest), undefined);
    await index.removeTag(alpine, latest);
    assert.equal(writes, 1);
    assert.equal(index.recallTag(alpine, latest), undefined);
  });

  void it("rewrites a large file if most of it is free pages, and keeps its rows", async (test) => {
    const path = join(await tempDir(test), "index.sqlite");
    const first = open(test, path);
    await first.index.recordBlob(keyOf("quay.io", "a"), blob(named("b"), 1));
    first.database.exec(
      "CREATE TABLE filler (bytes); INSERT INTO filler VALUES (zeroblob(20000000))",
    );
    first.database.exec("DROP TABLE filler");
    await first.index.close();
    assert.ok(statSync(path).size > 20_000_000);
    const again = open(test, path);
    assert.ok(statSync(path).size < 1_000_000);
    assert.equal((await again.index.totals()).blobs, 1);
  });

  void it("names the file that it can't open", async (test) => {
    const path = join(await tempDir(test), "index.sqlite");
    symlinkSync(path, path);
    assert.throws(() => open(test, path), {
      name: "IndexError",
      message: `${path}: SQLITE_CANTOPEN`,
    });
  });

  for (const suffix of ["", "-wal"]) {
    void it(`moves a folder in the place of index.sqlite${suffix} aside`, async (test) => {
      const path = await writeIndex(test);
      rmSync(path + suffix, { force: true });
      mkdirSync(join(path + suffix, "below"), { recursive: true });
      const { movedAsideTo, isTemporary } = open(test, path);
      assert.equal(isTemporary, false);
      assert.ok(existsSync(join(`${movedAsideTo ?? ""}${suffix}`, "below")));
    });
  }
});

/** Damages the first page of the tags, which opening does not read. */
function damageTags(path: string): void {
  const database = new Database(path);
  const pageBytes = database.pragma("page_size", { simple: true }) as number;
  const page = database
    .prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'tags'")
    .pluck()
    .get() as number;
  database.close();
  const fd = openSync(path, "r+");
  writeSync(
    fd,
    Buffer.alloc(pageBytes, 0xa5),
    0,
    pageBytes,
    (page - 1) * pageBytes,
  );
  closeSync(fd);
}
