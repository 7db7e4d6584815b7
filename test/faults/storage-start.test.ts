import assert from "node:assert/strict";
import {
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Child } from "../support/child-process.ts";
import { StorageScene } from "../support/storage-scene.ts";
import { tempDir } from "../support/temp-dir.ts";
import { Tmpfs } from "../support/tmpfs.ts";

const LAYERS = [300_000, 1_200_000];
/** One thread, because strace injects faults per thread. */
const ONE_THREAD = { UV_THREADPOOL_SIZE: "1" };

function strace(...injected: readonly string[]): [string, ...string[]] {
  const calls = injected.map((fault) => fault.split(":")[0]);
  return [
    "strace",
    "-f",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    `trace=${calls.join(",")}`,
    ...injected.flatMap((fault) => ["-e", `inject=${fault}`]),
  ];
}

/** Checks that every pull is complete, that none is stored, and that the mirror is ready and reports why it is degraded. */
async function assertPassesThrough(
  scene: StorageScene,
  code: string,
): Promise<void> {
  assert.equal(
    await scene.storage(),
    `degraded: the root can't be opened: ${code}`,
  );
  assert.equal(await scene.degraded(), "1");
  for (const _ of [1, 2]) {
    assert.ok((await scene.pull("app", LAYERS)) > 0);
  }
  const status = await fetch(`${scene.mirror.operatorOrigin}/api/v1/status`);
  assert.equal(status.status, 200);
}

/** Checks that it stores again, and that its stop leaves a root that the next start accepts. */
async function assertUsed(scene: StorageScene): Promise<void> {
  await scene.untilStorage(/^ok$/);
  assert.equal(await scene.degraded(), "0");
  await scene.untilStored("app", LAYERS);
  assert.equal((await scene.mirror.terminate()).code, 0);
}

void describe("a start on a faulty disk", () => {
  for (const exists of [true, false]) {
    void it(`that is read-only, ${exists ? "with" : "without"} a root: pulls pass through until it is writable`, async (test) => {
      const disk = await Tmpfs.mount(test, "size=64m");
      const scene = await StorageScene.open(test, join(disk.path, "data"));
      scene.addImages("app", LAYERS);
      if (exists) {
        await scene.start(test);
        await scene.untilStored("app", LAYERS);
        await scene.mirror.terminate();
      }
      await disk.remount("ro");
      await scene.start(test);
      await assertPassesThrough(scene, "EROFS");
      await disk.remount("rw");
      await scene.untilStorage(/^ok$/);
      if (exists) assert.equal(await scene.pull("app", LAYERS), 0);
      await assertUsed(scene);
    });
  }

  void it("without a free inode: pulls pass through until one is free", async (test) => {
    const disk = await Tmpfs.mount(test, "size=64m,nr_inodes=64");
    const fill = join(disk.path, "fill");
    await mkdir(fill);
    for (let at = 0; ; at += 1) {
      const isFull = await writeFile(join(fill, String(at)), "").then(
        () => false,
        () => true,
      );
      if (isFull) break;
    }
    const scene = await StorageScene.open(test, join(disk.path, "data"));
    scene.addImages("app", LAYERS);
    await scene.start(test);
    await assertPassesThrough(scene, "ENOSPC");
    await rm(fill, { recursive: true });
    await assertUsed(scene);
  });

  for (const { fault, says } of [
    { fault: "mkdir:error=EIO:when=1", says: "EIO" },
    { fault: "fdatasync:error=EIO:when=1", says: "EIO" },
  ]) {
    void it(`that fails with ${fault}: pulls pass through until it succeeds`, async (test) => {
      const scene = await StorageScene.open(
        test,
        join(await tempDir(test), "data"),
        { wrapper: strace(fault), env: ONE_THREAD },
      );
      scene.addImages("app", LAYERS);
      await scene.start(test);
      await assertPassesThrough(scene, says);
      await assertUsed(scene);
    });
  }

  void it("that can't read the index: pulls pass through until it can", async (test) => {
    const folder = await tempDir(test);
    const root = join(folder, "data");
    const index = join(root, "index.sqlite");
    const scene = await StorageScene.open(test, root, {
      dir: folder,
      wrapper: [...strace("pread64:error=EIO:when=1"), "-P", index],
    });
    scene.addImages("app", LAYERS);
    // A start without an index does not read one.
    await scene.start(test);
    await scene.untilStored("app", LAYERS);
    await scene.mirror.terminate();
    await scene.mirror.start();
    await assertPassesThrough(scene, "SQLITE_IOERR_CORRUPTFS");
    await scene.untilStorage(/^ok$/);
    assert.equal(await scene.pull("app", LAYERS), 0);
    await assertUsed(scene);
  });

  void it("that hangs is ended by a signal", async (test) => {
    const folder = await tempDir(test);
    const file = join(folder, "entrepot.yaml");
    const root = join(folder, "data");
    await writeFile(
      file,
      JSON.stringify({ listen: "127.0.0.1:0", storage: { root } }),
    );
    const trace = join(folder, "trace");
    const [command, ...args] = [
      ...strace("mkdir:delay_enter=600s").map((arg) =>
        arg === "/dev/null" ? trace : arg,
      ),
      "-P",
      root,
      process.execPath,
      join(import.meta.dirname, "../../src/main.ts"),
      "serve",
      "--config",
      file,
    ];
    const child = new Child(test, { command, args, isWrapper: true });
    const isHeld = async (): Promise<boolean> => {
      const traced = await stat(trace).catch(() => undefined);
      return (traced?.size ?? 0) > 0;
    };
    while (child.isRunning && !(await isHeld())) await delay(50);
    // strace keeps the thread that it delays, and so the rest of the process.
    const wrapper = String(child.pid);
    const pid = await readFile(
      `/proc/${wrapper}/task/${wrapper}/children`,
      "utf8",
    );
    const state = async (): Promise<string | undefined> =>
      /^State:\s+(\w)/m.exec(
        await readFile(`/proc/${pid.trim()}/status`, "utf8"),
      )?.[1];
    assert.notEqual(await state(), "Z");
    child.signal("SIGTERM");
    for (let left = 400; (await state()) !== "Z"; left -= 1) {
      assert.ok(left > 0, "it runs still");
      await delay(50);
    }
    await child.kill();
    assert.deepEqual(await readdir(folder), ["entrepot.yaml", "trace"]);
  });
});
