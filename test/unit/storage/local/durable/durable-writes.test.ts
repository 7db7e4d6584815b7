import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { digestOf } from "../../../../../src/oci/digest.ts";
import { StorageError } from "../../../../../src/storage/blob-store.ts";
import { IndexError } from "../../../../../src/storage/metadata-index.ts";
import { DurableWrites } from "../../../../../src/storage/local/durable/durable-writes.ts";
import { WalSync } from "../../../../../src/storage/local/durable/wal-sync.ts";
import { IndexTransactions } from "../../../../../src/storage/local/index/index-transactions.ts";
import { openDatabase } from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import type { Changed } from "../../../../../src/storage/local/index/root-changes.ts";
import {
  diskLayout,
  layoutFolders,
} from "../../../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import {
  type JournalRoot,
  rootName,
} from "../../../../../src/storage/local/upkeep/journal-lines.ts";
import {
  type RootChange,
  RootsJournal,
} from "../../../../../src/storage/local/upkeep/roots-journal.ts";
import { keyOf, tag } from "../../../../contract/metadata-index-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { FaultyFileSystem } from "../../../../support/faulty-file-system.ts";
import { ManualSchedule } from "../../../../support/manual-schedule.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const app = keyOf("local", "team/app");
const web = keyOf("local", "team/web");
const MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json";

type Name = Pick<JournalRoot, "key" | "reference">;

function nameOf(key: typeof app, text: string): Name {
  return { key, reference: { kind: "tag", tag: tag(text) } };
}

/** Writes to a table with the content of each name, through the journal and the real log. */
async function setUp(test: AfterTest) {
  const layout = diskLayout(await tempDir(test));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const faults = new FaultyFileSystem();
  const { fileSystem } = faults;
  const clock = new FakeClock();
  const database = openDatabase(layout.indexFile);
  database.exec(
    "CREATE TABLE contents (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
  );
  releaseAfter(test, () => {
    database.close();
  });
  let releases = 0;
  const transactions = new IndexTransactions({
    database,
    onCorrupt: () => undefined,
    onChanged: () => undefined,
    onWritten: () => undefined,
    onFull: () => {
      releases++;
    },
  });
  const journal = new RootsJournal({
    layout,
    fileSystem,
    clock,
    schedule: new ManualSchedule().start,
  });
  const wal = new WalSync({
    layout,
    fileSystem,
    current: () => ({ database, isTemporary: false }),
  });
  const read = (name: Name): string | undefined =>
    database
      .prepare("SELECT content FROM contents WHERE name = ?")
      .pluck()
      .get(rootName(name)) as string | undefined;
  const readNow = (name: Name): RootChange => {
    const content = read(name);
    return {
      ...name,
      digest:
        content === undefined ? undefined : digestOf(Buffer.from(content)),
      mediaType: content === undefined ? undefined : MEDIA_TYPE,
      isPinned: false,
      atMs: undefined,
    };
  };
  const writes = new DurableWrites({
    transactions,
    durability: {
      appendSynced: (roots) => journal.appendSynced(roots),
      syncRows: () => wal.sync(),
      doubt: () => journal.doubt(),
    },
    readNow,
    nowMs: () => clock.nowMs(),
  });
  /** Returns the work that sets or deletes the content of a name. */
  const setting =
    (name: Name, content: string | undefined) => (): Changed<string> => {
      if (content === undefined) {
        database
          .prepare("DELETE FROM contents WHERE name = ?")
          .run(rootName(name));
      } else {
        database
          .prepare("INSERT OR REPLACE INTO contents VALUES (?, ?)")
          .run(rootName(name), content);
      }
      return {
        result: "changed",
        changes: [readNow(name)],
      };
    };
  const set = (name: Name, content: string | undefined): Promise<string> =>
    writes.change("set", name.key, setting(name, content));
  /** Asserts that the last line of each name states its row. */
  const assertAgreement = async (...names: readonly Name[]): Promise<void> => {
    const lines = new Map(
      (await journal.read()).map((root) => [rootName(root), root.digest]),
    );
    for (const name of names) {
      assert.equal(lines.get(rootName(name)), readNow(name).digest);
    }
  };
  return {
    faults,
    journal,
    writes,
    set,
    setting,
    read,
    assertAgreement,
    /** How often the reserve of the index was released. */
    releases: () => releases,
  };
}

void describe("a durable write", () => {
  void it("syncs its line, then commits, then syncs the log of the index", async (test) => {
    const { journal, writes, setting, read, faults } = await setUp(test);
    const name = nameOf(app, "v1");
    const steps: string[] = [];
    const work = setting(name, "a");
    await writes.change("set", app, () => {
      steps.push(`work after ${faults.countOf("fdatasync")} syncs`);
      return work();
    });
    assert.deepEqual(steps, ["work after 0 syncs", "work after 1 syncs"]);
    assert.equal(faults.countOf("fdatasync"), 2);
    assert.equal(read(name), "a");
    assert.equal(journal.isWhole, true);
    assert.equal(faults.openFiles, 0);
  });

  void it("writes no line for a refusal", async (test) => {
    const { journal, writes } = await setUp(test);
    const outcome = await writes.change("set", app, () => ({
      result: "refused",
      changes: [],
    }));
    assert.equal(outcome, "refused");
    assert.deepEqual(await journal.read(), []);
  });

  void it("of rows without a line is synced", async (test) => {
    const { writes, setting, faults, read } = await setUp(test);
    const name = nameOf(app, "v1");
    assert.equal(
      (await writes.write("set", setting(name, "a"))).result,
      "changed",
    );
    assert.equal(faults.countOf("fdatasync"), 1);
    assert.equal(faults.countOf("fsync"), 1, "the names of the files");
    assert.equal(read(name), "a");
  });

  void it("waits for the change before it in the same repository only", async (test) => {
    const { set, faults, assertAgreement, read } = await setUp(test);
    const names = [nameOf(app, "v1"), nameOf(web, "v1")] as const;
    const all: Promise<string>[] = [];
    for (let at = 0; at < 20; at += 1) {
      for (const name of names) {
        all.push(set(name, at % 5 === 4 ? undefined : `${at}`));
      }
    }
    all.push(set(names[0], "last"), set(names[1], "last"));
    await Promise.all(all);
    assert.equal(read(names[0]), "last");
    assert.equal(read(names[1]), "last");
    await assertAgreement(...names);
    // Two repositories share syncs; without that each of the 42 changes makes two.
    assert.ok(
      faults.countOf("fdatasync") < 70,
      `${faults.countOf("fdatasync")}`,
    );
  });

  for (const call of ["open", "writev", "fdatasync"] as const) {
    void it(`uses the reserve of the index if ${call} of its line finds a full disk`, async (test) => {
      const scene = await setUp(test);
      const { journal, set, faults, assertAgreement, read } = scene;
      const name = nameOf(app, "v1");
      await set(name, "a");
      faults.fail(call, "ENOSPC");
      await set(name, "b");
      assert.equal(scene.releases(), 1);
      assert.equal(read(name), "b");
      await assertAgreement(name);
      assert.equal(journal.isWhole, true);
    });

    void it(`changes nothing if ${call} of its line fails`, async (test) => {
      const { journal, set, faults, assertAgreement, read } = await setUp(test);
      const name = nameOf(app, "v1");
      await set(name, "a");
      faults.fail(call, "EIO");
      await assert.rejects(set(name, "b"), {
        name: "StorageError",
        code: "EIO",
      });
      assert.equal(read(name), "a");
      // The line may be in the file; one that states the row follows.
      await assertAgreement(name);
      assert.equal(journal.isWhole, true);
    });

    for (const code of ["ENOSPC", "EIO"]) {
      void it(`rejects further changes of its repository while ${call} fails with ${code}`, async (test) => {
        const { journal, set, faults, assertAgreement, read } =
          await setUp(test);
        const name = nameOf(app, "v1");
        const other = nameOf(web, "v1");
        await set(name, "a");
        faults.failFrom(call, code);
        await assert.rejects(set(name, "b"), StorageError);
        await assert.rejects(set(name, "c"), StorageError);
        assert.equal(journal.isWhole, false, "a stop now is not clean");
        faults.repair(call);
        await set(other, "o");
        assert.equal(journal.isWhole, false);
        await set(name, "d");
        assert.equal(read(name), "d");
        await assertAgreement(name, other);
        assert.equal(journal.isWhole, true);
      });
    }
  }

  void it("is followed by a line of what the index has if the commit fails", async (test) => {
    const { journal, writes, set, setting, assertAgreement, read } =
      await setUp(test);
    const name = nameOf(app, "v1");
    await set(name, "a");
    let runs = 0;
    const work = setting(name, "b");
    await assert.rejects(
      writes.change("set", app, () => {
        runs += 1;
        if (runs === 2) throw new IndexError("the commit fails");
        return work();
      }),
      /the commit fails/,
    );
    assert.equal(read(name), "a");
    await assertAgreement(name);
    assert.equal(journal.isWhole, true);
  });

  void it("is planned again if its outcome changed while the line was written", async (test) => {
    const { writes, set, setting, assertAgreement, read } = await setUp(test);
    const name = nameOf(app, "v1");
    let isRefused = false;
    const work = setting(name, "b");
    const change = writes.change("set", app, () => {
      if (isRefused) return { result: "refused", changes: [] };
      return work();
    });
    // Another repository takes the rest of the quota.
    isRefused = await set(nameOf(web, "v1"), "o").then(() => true);
    assert.ok(["refused", "changed"].includes(await change));
    let runs = 0;
    const outcome = await writes.change("set", app, () => {
      runs += 1;
      return runs === 1 ? work() : { result: "refused", changes: [] };
    });
    assert.equal(outcome, "refused");
    await assertAgreement(name);
    assert.ok(read(name) === "b" || read(name) === undefined);
  });

  void it("ends with an error if its outcome changes each time", async (test) => {
    const { writes, setting, assertAgreement } = await setUp(test);
    let runs = 0;
    const name = nameOf(app, "v1");
    await assert.rejects(
      writes.change("set", app, () => {
        runs += 1;
        return setting(name, `${runs}`)();
      }),
      IndexError,
    );
    await writes.change("set", app, () => ({ result: "", changes: [] }));
    await assertAgreement(name);
  });

  void it("is rejected if the log of the index can't be synced, and row and line agree", async (test) => {
    const { set, faults, assertAgreement } = await setUp(test);
    const name = nameOf(app, "v1");
    await set(name, "a");
    faults.fail("fdatasync", "EIO", 2);
    await assert.rejects(set(name, "b"), { name: "StorageError", code: "EIO" });
    await assertAgreement(name);
  });
});
