import assert from "node:assert/strict";
import { appendFileSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { digestOf } from "../../../../../src/oci/digest.ts";
import { StorageError } from "../../../../../src/storage/blob-store.ts";
import {
  diskLayout,
  layoutFolders,
} from "../../../../../src/storage/local/root/disk-layout.ts";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../../../../src/storage/local/root/file-system.ts";
import {
  type JournalRoot,
  lineOf,
  parseLine,
} from "../../../../../src/storage/local/upkeep/journal-lines.ts";
import { RootsJournal } from "../../../../../src/storage/local/upkeep/roots-journal.ts";
import { keyOf, tag } from "../../../../contract/metadata-index-contract.ts";
import type { AfterTest } from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { FaultyFileSystem } from "../../../../support/faulty-file-system.ts";
import { ManualSchedule } from "../../../../support/manual-schedule.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json";

function hostedTag(name: string, content: string | undefined): JournalRoot {
  return {
    key: keyOf("local", "team/app"),
    reference: { kind: "tag", tag: tag(name) },
    isPinned: false,
    isHosted: true,
    digest: content === undefined ? undefined : digestOf(Buffer.from(content)),
    mediaType: content === undefined ? undefined : MEDIA_TYPE,
    atMs: 1_700_000_000_000,
  };
}

async function setUp(test: AfterTest, wrap = (inner: FileSystem) => inner) {
  const layout = diskLayout(await tempDir(test));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const faults = new FaultyFileSystem();
  const journal = new RootsJournal({
    layout,
    fileSystem: wrap(faults.fileSystem),
    clock: new FakeClock(),
    schedule: new ManualSchedule().start,
  });
  return { journal, layout, faults };
}

/** Blocks each call of a kind until the test lets it continue. */
function gate() {
  const entered: (() => void)[] = [];
  let arrived = Promise.withResolvers<void>();
  return {
    async pass(): Promise<void> {
      const { promise, resolve } = Promise.withResolvers<void>();
      entered.push(resolve);
      arrived.resolve();
      await promise;
    },
    /** Resolves when a call waits. */
    async arrival(): Promise<void> {
      if (entered.length === 0) await arrived.promise;
      arrived = Promise.withResolvers();
    },
    open(): void {
      entered.shift()?.();
    },
  };
}

async function* noPages(): AsyncGenerator<readonly JournalRoot[]> {
  // The index has nothing.
}

void describe("a hosted line", () => {
  void it("is read as it was written, for a tag, a manifest and a deletion", () => {
    const digest = digestOf(Buffer.from("manifest"));
    for (const root of [
      hostedTag("v1", "manifest"),
      hostedTag("v1", undefined),
      { ...hostedTag("v1", "manifest"), reference: { kind: "digest", digest } },
    ] satisfies readonly JournalRoot[]) {
      assert.deepEqual(parseLine(lineOf(root).trimEnd()), root);
    }
  });

  void it("is not replaced by a later line of the same name that is not hosted", async (test) => {
    const { journal } = await setUp(test);
    await journal.appendSynced([hostedTag("v1", "a")]);
    const { isHosted, ...mirrored } = hostedTag("v1", "b");
    assert.equal(isHosted, true);
    journal.note(mirrored);
    await journal.flush();
    assert.deepEqual(await journal.read(), [hostedTag("v1", "a")]);
  });

  void it("is refused if a start could not read it", async (test) => {
    const { journal, layout } = await setUp(test);
    await assert.rejects(
      journal.appendSynced([
        { ...hostedTag("v1", "a"), mediaType: "no media type" },
      ]),
      TypeError,
    );
    assert.throws(() => readFileSync(layout.rootsFile));
  });
});

void describe("an append of hosted lines", () => {
  void it("resolves after the lines, the file and its name are synced", async (test) => {
    const { journal, faults } = await setUp(test);
    await journal.appendSynced([hostedTag("v1", "a"), hostedTag("v2", "a")]);
    assert.equal(faults.countOf("fdatasync"), 1);
    assert.equal(faults.countOf("fsync"), 1, "the folder");
    await journal.appendSynced([hostedTag("v1", "b")]);
    assert.equal(faults.countOf("fdatasync"), 2);
    assert.equal(faults.countOf("fsync"), 1, "the name is durable");
    assert.deepEqual(await journal.read(), [
      hostedTag("v2", "a"),
      hostedTag("v1", "b"),
    ]);
    assert.equal(faults.openFiles, 0);
  });

  void it("shares one sync with all that arrive while another sync runs", async (test) => {
    const syncs = gate();
    const { journal, faults } = await setUp(test, (inner) => ({
      ...inner,
      fdatasync: async (fd) => {
        await syncs.pass();
        await inner.fdatasync(fd);
      },
    }));
    const first = journal.appendSynced([hostedTag("first", "a")]);
    await syncs.arrival();
    const later = Array.from({ length: 100 }, (_, at) =>
      journal.appendSynced([hostedTag(`v${at}`, "a")]),
    );
    syncs.open();
    await first;
    await syncs.arrival();
    syncs.open();
    await Promise.all(later);
    assert.equal(faults.countOf("fdatasync"), 2);
    assert.equal((await journal.read()).length, 101);
  });

  for (const call of ["open", "writev", "fdatasync", "fsync"] as const) {
    for (const code of ["ENOSPC", "EIO"]) {
      void it(`rejects if ${call} fails with ${code}, and the next one works`, async (test) => {
        const { journal, faults } = await setUp(test);
        faults.maxWriteBytes = 10;
        faults.fail(call, code, call === "writev" ? 3 : 1);
        await assert.rejects(
          journal.appendSynced([hostedTag("v1", "a")]),
          (error) => error instanceof StorageError && error.code === code,
        );
        faults.maxWriteBytes = Number.POSITIVE_INFINITY;
        const lines = await journal.appendSynced([hostedTag("v2", "b")]);
        const found = await journal.read();
        assert.deepEqual(found.at(-1), hostedTag("v2", "b"));
        assert.equal(journal.isWhole, false, "the row may be missing");
        lines.settle();
        assert.equal(journal.isWhole, true);
        assert.equal(faults.openFiles, 0);
      });
    }
  }
});

void describe("a compaction", () => {
  void it("keeps lines whose rows are not committed, and those that were appended meanwhile, in order", async (test) => {
    const { journal, layout } = await setUp(test);
    const settled = await journal.appendSynced([hostedTag("settled", "a")]);
    settled.settle();
    await journal.appendSynced([hostedTag("v1", "a")]);
    await journal.appendSynced([hostedTag("v1", "b"), hostedTag("v2", "b")]);
    async function* pages(): AsyncGenerator<readonly JournalRoot[]> {
      yield [hostedTag("v1", "before"), hostedTag("kept", "k")];
      // Appends do not wait for the compaction.
      (await journal.appendSynced([hostedTag("v2", undefined)])).settle();
      (await journal.appendSynced([hostedTag("v3", "c")])).settle();
    }
    await journal.compact(pages());
    const text = readFileSync(layout.rootsFile, "latin1");
    assert.match(text, /^\{"complete":"/);
    assert.deepEqual(await journal.read(), [
      hostedTag("kept", "k"),
      hostedTag("v1", "b"),
      hostedTag("v2", undefined),
      hostedTag("v3", "c"),
    ]);
  });

  void it("keeps and syncs a line that was appended while the new file was synced", async (test) => {
    const calls: string[] = [];
    let onSync: (() => Promise<void>) | undefined;
    const { journal } = await setUp(test, (inner) => ({
      ...inner,
      fdatasync: async (fd) => {
        const run = onSync;
        onSync = undefined;
        await run?.();
        calls.push("fdatasync");
        await inner.fdatasync(fd);
      },
      rename: async (from, to) => {
        calls.push("rename");
        await inner.rename(from, to);
      },
    }));
    (await journal.appendSynced([hostedTag("v1", "a")])).settle();
    onSync = async () => {
      (await journal.appendSynced([hostedTag("v2", "b")])).settle();
      calls.length = 0;
    };
    await journal.compact(noPages());
    assert.deepEqual(await journal.read(), [hostedTag("v2", "b")]);
    assert.deepEqual(calls, ["fdatasync", "fdatasync", "rename"]);
  });

  void it("drops settled lines that the index does not have", async (test) => {
    const { journal } = await setUp(test);
    for (const content of ["a", "b", undefined]) {
      (await journal.appendSynced([hostedTag("v1", content)])).settle();
    }
    await journal.compact(noPages());
    assert.deepEqual(await journal.read(), []);
  });

  void it("leaves the file with every line if a call fails, and is repeated", async (test) => {
    for (const call of [
      "statPath",
      "open",
      "writev",
      "read",
      "fdatasync",
      "rename",
      "fsync",
    ] as const) {
      const { journal, faults, layout } = await setUp(test);
      await journal.appendSynced([hostedTag("v1", "a")]);
      // A crash of an earlier process cut this line.
      appendFileSync(layout.rootsFile, '{"ref":"local/');
      faults.fail(call, "EIO");
      await assert.rejects(journal.compact(noPages()), { code: "EIO" }, call);
      assert.deepEqual(await journal.read(), [hostedTag("v1", "a")], call);
      await journal.compact(noPages());
      await journal.appendSynced([hostedTag("v2", "b")]);
      assert.deepEqual(
        await journal.read(),
        [hostedTag("v1", "a"), hostedTag("v2", "b")],
        call,
      );
      assert.equal(faults.openFiles, 0);
    }
  });

  void it("syncs the new name before a line counts as synced", async (test) => {
    const { journal, faults } = await setUp(test);
    await journal.appendSynced([hostedTag("v1", "a")]);
    faults.failFrom("fsync", "EIO");
    await assert.rejects(journal.compact(noPages()), { code: "EIO" });
    await assert.rejects(journal.appendSynced([hostedTag("v2", "b")]), {
      code: "EIO",
    });
  });
});
