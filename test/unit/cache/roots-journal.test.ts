import assert from "node:assert/strict";
import { statSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { diskLayout, layoutFolders } from "../../../src/cache/disk-layout.ts";
import { nodeFileSystem } from "../../../src/cache/file-system.ts";
import {
  type JournalRoot,
  RootsJournal,
} from "../../../src/cache/roots-journal.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { keyOf, tag } from "../../contract/metadata-index-contract.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FaultyFileSystem } from "../../support/faulty-file-system.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { tempDir } from "../../support/temp-dir.ts";

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

void describe("the journal of the tags", () => {
  void it("is written anew at a start where it is short, too short, long or missing, and else left alone", async (test) => {
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

  void it("is whole once all that was noted is in the file", async (test) => {
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

  void it("is not whole after more changes than it keeps, until it is written anew", async (test) => {
    const { journal } = await setUp(test);
    for (let at = 0; at <= 10_000; at += 1) journal.note(rootOf(at));
    await journal.flush();
    assert.equal(journal.isWhole, false);
    await journal.compact(pages(10_001));
    assert.equal(journal.isWhole, true);
    assert.equal((await journal.read()).length, 10_001);
  });
});
