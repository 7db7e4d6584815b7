import assert from "node:assert/strict";
import { statSync, writeFileSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, it } from "node:test";
import {
  diskLayout,
  layoutFolders,
} from "../../../../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import type { JournalRoot } from "../../../../../src/storage/local/upkeep/journal-lines.ts";
import { RootsJournal } from "../../../../../src/storage/local/upkeep/roots-journal.ts";
import { digestOf } from "../../../../../src/oci/digest.ts";
import { keyOf, tag } from "../../../../contract/metadata-index-contract.ts";
import type { AfterTest } from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { FaultyFileSystem } from "../../../../support/faulty-file-system.ts";
import { ManualSchedule } from "../../../../support/manual-schedule.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const TAGS = 2_000;

function rootOf(at: number): JournalRoot {
  return {
    key: keyOf("docker.io", `library/app-${at}`),
    reference: { kind: "tag", tag: tag("latest") },
    isPinned: false,
    digest: digestOf(Buffer.from(String(at))),
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    atMs: 1_700_000_000_000,
  };
}

async function* pages(count: number): AsyncGenerator<readonly JournalRoot[]> {
  yield Array.from({ length: count }, (_, at) => rootOf(at));
}

function byTime(a: JournalRoot, b: JournalRoot): number {
  return a.atMs - b.atMs;
}

async function setUp(test: AfterTest) {
  const layout = diskLayout(await tempDir(test));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const faults = new FaultyFileSystem();
  const journal = new RootsJournal({
    layout,
    fileSystem: faults.fileSystem,
    clock: new FakeClock(),
    schedule: new ManualSchedule().start,
  });
  return { journal, layout, faults };
}

void describe("the roots journal", () => {
  void it("is rewritten at a start if it has few roots, lacks lines, is too long or is missing", async (test) => {
    const { journal, layout } = await setUp(test);
    assert.equal(await journal.hasSlack(TAGS), true, "missing");
    await journal.compact(pages(TAGS));
    assert.equal(await journal.hasSlack(TAGS), false, "a line a tag");
    assert.equal(await journal.hasSlack(3 * TAGS), true, "lines are missing");
    assert.equal(await journal.hasSlack(1_000), true, "few tags");
    const { size } = statSync(layout.rootsFile);
    writeFileSync(layout.rootsFile, Buffer.alloc(size));
    assert.equal(await journal.hasSlack(TAGS), false);
    writeFileSync(layout.rootsFile, Buffer.alloc(size * 3));
    assert.equal(await journal.hasSlack(TAGS), true, "mostly old lines");
  });

  void it("is whole once every change is in the file", async (test) => {
    const { journal, faults } = await setUp(test);
    assert.equal(journal.isWhole, true);
    journal.note(rootOf(1));
    assert.equal(journal.isWhole, false);
    faults.fail("open", "ENOSPC");
    await journal.flush();
    assert.equal(journal.isWhole, false);
    await journal.flush();
    assert.equal(journal.isWhole, true);
    assert.deepEqual(await journal.read(), [rootOf(1)]);
  });

  void it("is not whole after dropped changes, until it is rewritten", async (test) => {
    const { journal } = await setUp(test);
    for (let at = 0; at <= 10_000; at += 1) journal.note(rootOf(at));
    await journal.flush();
    assert.equal(journal.isWhole, false);
    await journal.compact(pages(10_001));
    assert.equal(journal.isWhole, true);
    assert.equal((await journal.read()).length, 10_001);
  });
});

/** Tags that move for a long time, and their rows in the index. */
async function moveTags(
  test: AfterTest,
  { moves, failEvery }: { moves: number; failEvery: number },
) {
  const layout = diskLayout(await tempDir(test));
  for (const folder of layoutFolders(layout)) {
    await nodeFileSystem.makeFolder(folder);
  }
  const faults = new FaultyFileSystem();
  const model = new Map<number, JournalRoot>();
  const written = new Map<number, JournalRoot>();
  let compactions = 0;
  let failures = 0;
  let running: Promise<void> = Promise.resolve();
  async function* modelPages(): AsyncGenerator<readonly JournalRoot[]> {
    for (let from = 0; from < 100; from += 10) {
      await nextTurn();
      yield [...model]
        .filter(([at]) => at >= from && at < from + 10)
        .map(([, root]) => root);
    }
  }
  const journal: RootsJournal = new RootsJournal({
    layout,
    fileSystem: faults.fileSystem,
    clock: new FakeClock(),
    schedule: new ManualSchedule().start,
    onObsolete: () => {
      compactions += 1;
      if (failEvery > 0 && compactions % failEvery === 0) {
        const calls = ["writev", "fdatasync", "rename"] as const;
        faults.fail(calls[compactions % calls.length] ?? "rename", "EIO");
      }
      running = running
        .then(() => journal.compact(modelPages()))
        .catch(() => {
          failures += 1;
        });
    },
  });
  /** Simulates a crash: the file has every flushed change, or a later one of the same tag. */
  const assertKept = async (): Promise<void> => {
    const found = new Map(
      (await journal.read()).map((root) => [
        root.key.repository.slice("library/app-".length),
        root,
      ]),
    );
    for (const [at, root] of written) {
      const line = found.get(String(at));
      assert.ok((line?.atMs ?? 0) >= root.atMs, `${at} was lost`);
    }
  };
  let largest = 0;
  for (let move = 0; move < moves; move += 1) {
    const at = (move * 37) % 100;
    const root = { ...rootOf(at), atMs: 1_700_000_000_000 + move };
    model.set(at, root);
    journal.note(root);
    const before = new Map(model);
    if (move % 50 === 49) {
      await journal.flush();
      // Rejected changes stay pending.
      if (journal.isWhole) for (const kept of before) written.set(...kept);
      await assertKept();
      largest = Math.max(largest, statSync(layout.rootsFile).size);
    }
  }
  await running;
  await journal.flush();
  const roots = await journal.read();
  assert.deepEqual(
    roots.toSorted(byTime),
    [...model.values()].toSorted(byTime),
  );
  return { largest, compactions, failures };
}

void describe("the roots journal of a running mirror", () => {
  void it("is not whole if changes were dropped after a compaction had read their rows", async (test) => {
    const { journal } = await setUp(test);
    async function* pagesAndMore(): AsyncGenerator<readonly JournalRoot[]> {
      yield* pages(10);
      for (let at = 0; at <= 10_000; at += 1) journal.note(rootOf(at));
    }
    await journal.compact(pagesAndMore());
    assert.equal(journal.isWhole, false);
  });

  void it("is compacted if more than half is obsolete, and loses no line", async (test) => {
    const { largest, compactions } = await moveTags(test, {
      moves: 6_000,
      failEvery: 0,
    });
    assert.ok(compactions >= 3, `${compactions}`);
    // A hundred roots, the growth below the limit, and the changes during the compaction.
    assert.ok(largest < 400_000, `${largest} bytes`);
  });

  void it("stays unchanged if a compaction fails at any call, and is compacted later", async (test) => {
    const { failures, compactions } = await moveTags(test, {
      moves: 8_000,
      failEvery: 2,
    });
    assert.ok(failures > 0 && compactions > failures, `${failures}`);
  });
});
