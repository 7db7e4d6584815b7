import assert from "node:assert/strict";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  judgeBaseline,
  openDescriptors,
  type QuietPoint,
} from "../../support/baseline.ts";
import { tempDir } from "../../support/temp-dir.ts";

const MIB = 1024 * 1024;
const BOUNDS = {
  descriptors: 2,
  liveGrowthBytes: 10 * MIB,
  residentGrowthBytes: 10 * MIB,
};

function points(
  count: number,
  change: (at: number) => Partial<QuietPoint>,
): QuietPoint[] {
  return Array.from({ length: count }, (_, at) => ({
    files: 30,
    sockets: 2,
    storageFiles: 0,
    rssBytes: 120 * MIB,
    liveBytes: 40 * MIB,
    partials: 0,
    intents: 0,
    ...change(at),
  }));
}

void describe("a baseline", () => {
  for (const [name, change] of [
    ["nothing", () => ({})],
    ["a thread more", () => ({ files: 32 })],
    ["memory that swings", (at: number) => ({ rssBytes: (at % 2) * 60 * MIB })],
    ["a peak", (at: number) => ({ rssBytes: at === 11 ? 900 * MIB : MIB })],
    ["partials on the way", (at: number) => ({ partials: at === 11 ? 0 : 9 })],
  ] as const) {
    void it(`is come back to after ${name}`, () => {
      assert.deepEqual(judgeBaseline(points(12, change), BOUNDS), []);
    });
  }

  for (const [name, change] of [
    ["open files", (at: number) => ({ files: 30 + at })],
    ["open sockets", (at: number) => ({ sockets: 2 + at })],
    ["storageFiles", (at: number) => ({ storageFiles: Number(at === 5) })],
    ["intents", (at: number) => ({ intents: Number(at === 5) })],
    ["partials", (at: number) => ({ partials: at })],
    ["live", (at: number) => ({ liveBytes: (40 + 2 * at) * MIB })],
    ["resident", (at: number) => ({ rssBytes: (100 + 2 * at) * MIB })],
  ] as const) {
    void it(`is not come back to where there is more of: ${name}`, () => {
      const faults = judgeBaseline(points(12, change), BOUNDS);
      assert.equal(faults.length, 1, faults.join("; "));
      assert.ok(faults.every((fault) => fault.startsWith(name)));
    });
  }

  void it("needs a point to judge", () => {
    assert.deepEqual(judgeBaseline([], BOUNDS), ["no quiet point"]);
  });

  void it("counts a process's files, those of the storage apart", async (test) => {
    const root = await tempDir(test);
    mkdirSync(join(root, "blobs"));
    const before = openDescriptors(process.pid, root);
    const fds = ["blobs/x", "index.sqlite"].map((name) =>
      openSync(join(root, name), "w"),
    );
    const during = openDescriptors(process.pid, root);
    for (const fd of fds) closeSync(fd);
    assert.equal(during.files - before.files, 2);
    assert.equal(during.storageFiles - before.storageFiles, 1);
    assert.equal(openDescriptors(process.pid, root).files, before.files);
  });
});
