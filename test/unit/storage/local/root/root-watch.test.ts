import assert from "node:assert/strict";
import { mkdir, readdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { constants } from "node:fs";
import { diskLayout } from "../../../../../src/storage/local/root/disk-layout.ts";
import {
  identifyFile,
  identifyFolder,
} from "../../../../../src/storage/local/root/file-identity.ts";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import { guardFileSystem } from "../../../../../src/storage/local/root/guarded-file-system.ts";
import {
  RootWatch,
  type RootWatchOptions,
} from "../../../../../src/storage/local/root/root-watch.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { ManualSchedule } from "../../../../support/manual-schedule.ts";
import { quietLog } from "../../../../support/pulling-mirror.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

async function setUp(test: AfterTest, options: Partial<RootWatchOptions> = {}) {
  const root = join(await tempDir(test), "data");
  await mkdir(root);
  const layout = diskLayout(root);
  await writeFile(layout.lockFile, "");
  const changes: (string | undefined)[] = [];
  const schedule = new ManualSchedule();
  const watch = new RootWatch({
    layout,
    log: quietLog,
    onChange: (absence) => changes.push(absence),
    schedule: schedule.start,
    ...options,
  });
  releaseAfter(test, () => watch.stop());
  const fileSystem = guardFileSystem(nodeFileSystem, watch);
  return { root, layout, watch, changes, schedule, fileSystem };
}

void describe("the watch of a storage root", () => {
  void it("reports a root that does not answer for 6 s as absent, with one pending check, until it answers", async (test) => {
    let nowMs = 0;
    let asked = 0;
    let answer = Promise.withResolvers<void>();
    const scene = await setUp(test, {
      nowMs: () => nowMs,
      identify: async () => {
        asked += 1;
        await answer.promise;
        return [
          await identifyFolder(scene.root),
          await identifyFile(scene.layout.lockFile),
        ];
      },
    });
    const { watch, schedule, changes } = scene;
    for (; nowMs < 6_000; nowMs += 2_000) {
      schedule.runNext();
      assert.equal(watch.absence, undefined);
    }
    schedule.runNext();
    assert.equal(watch.absence, "the root does not answer");
    assert.equal(asked, 1);
    await assert.rejects(watch.assertHere(), { code: "ESTALE" });
    assert.equal(watch.isHereNow(), false);
    answer.resolve();
    while (watch.isAway) await nextTurn();
    assert.deepEqual(changes, ["the root does not answer", undefined]);
    answer = Promise.withResolvers();
    watch.stop();
    assert.deepEqual(schedule.delaysMs, []);
  });

  void it("lets nothing be written to or reported absent in another folder", async (test) => {
    const { root, fileSystem, watch } = await setUp(test);
    const fd = await fileSystem.open(
      join(root, "open"),
      constants.O_RDWR | constants.O_CREAT,
    );
    await rename(root, `${root}-moved`);
    await mkdir(root);
    await writeFile(join(root, "there"), "");
    const away = { code: "ESTALE" };
    const { O_CREAT, O_RDWR, O_RDONLY } = constants;
    await assert.rejects(fileSystem.statPath(join(root, "open")), away);
    for (const call of [
      () => fileSystem.open(join(root, "new"), O_RDWR | O_CREAT),
      () => fileSystem.open(join(root, "there"), O_RDONLY),
      () => fileSystem.rename(join(root, "there"), join(root, "new")),
      () => fileSystem.unlink(join(root, "there")),
      () => fileSystem.makeFolder(join(root, "new")),
      () => fileSystem.makePrivate(join(root, "there")),
      () => fileSystem.removeTree(join(root, "there")),
      () => fileSystem.list(root),
      () => fileSystem.eachName(root, () => Promise.resolve()),
      () => fileSystem.writev(fd, [Buffer.from("x")], 0),
    ]) {
      await assert.rejects(call(), away);
    }
    assert.equal(await fileSystem.read(fd, Buffer.alloc(1), 0, 1, 0), 0);
    await fileSystem.close(fd);
    assert.deepEqual(await readdir(root), ["there"]);
    assert.equal(watch.absence, "the root was moved, deleted or unmounted");
  });

  void it("writes nothing to a folder that replaced the root just before the write", async (test) => {
    const { root, watch } = await setUp(test);
    await writeFile(join(root, "roots.jsonl"), "ours");
    let isSwapped = false;
    const fileSystem = guardFileSystem(
      {
        ...nodeFileSystem,
        open: async (...input) => {
          if (!isSwapped) {
            isSwapped = true;
            await rename(root, `${root}-moved`);
            await mkdir(root);
            await writeFile(join(root, "roots.jsonl"), "theirs");
          }
          return nodeFileSystem.open(...input);
        },
      },
      watch,
    );
    const { O_CREAT, O_WRONLY, O_APPEND } = constants;
    for (const name of ["roots.jsonl", "new"]) {
      await assert.rejects(
        fileSystem.open(join(root, name), O_WRONLY | O_CREAT | O_APPEND),
        { code: "ESTALE" },
      );
    }
    assert.deepEqual(await readdir(root), ["roots.jsonl"]);
  });

  void it("leaves no created file in such a folder", async (test) => {
    const { root, watch } = await setUp(test);
    const fileSystem = guardFileSystem(
      {
        ...nodeFileSystem,
        open: async (...input) => {
          await rename(root, `${root}-moved`);
          await mkdir(root);
          return nodeFileSystem.open(...input);
        },
      },
      watch,
    );
    await assert.rejects(
      fileSystem.open(
        join(root, "roots.jsonl"),
        constants.O_WRONLY | constants.O_CREAT,
      ),
      { code: "ESTALE" },
    );
    assert.deepEqual(await readdir(root), []);
  });

  void it("reports a file as absent if the opened root is in place", async (test) => {
    const { root, fileSystem, watch } = await setUp(test);
    await assert.rejects(fileSystem.statPath(join(root, "absent")), {
      code: "ENOENT",
    });
    assert.equal(watch.absence, undefined);
  });
});
