import assert from "node:assert/strict";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { AfterTest } from "../support/after-test.ts";
import { Barrier } from "../support/barrier.ts";
import { LoopDisk } from "../support/loop-disk.ts";
import { startRequest } from "../support/raw-client.ts";
import { runCommand } from "../support/run-command.ts";
import { seededBlob } from "../support/image-builder.ts";
import { listTree, StorageScene } from "../support/storage-scene.ts";
import { tempDir } from "../support/temp-dir.ts";

const MIB = 1024 * 1024;
const LAYERS = [300_000, 2 * MIB];
/** The limit, plus the delay of a loaded machine. */
const NOTICED_WITHIN_MS = 10_000;
const AWAY = /^degraded: the root was moved, deleted or unmounted$/;

interface Place {
  /** The storage root. */
  readonly root: string;
  /** Removes the root. @returns a folder that is now at its path, to which nothing may be written */
  readonly away: () => Promise<string | undefined>;
  /** Restores the root; absent if that is not possible. */
  readonly back?: () => Promise<void>;
  /** The reason that `/readyz` reports. */
  readonly says?: RegExp;
}

type Setting = (test: AfterTest) => Promise<Place>;

const SETTINGS: readonly { readonly name: string; readonly place: Setting }[] =
  [
    {
      name: "is moved away",
      place: async (test) => {
        const folder = await tempDir(test);
        const [root, moved] = [join(folder, "data"), join(folder, "moved")];
        return {
          root,
          away: async () => {
            await rename(root, moved);
            return undefined;
          },
          back: () => rename(moved, root),
        };
      },
    },
    {
      name: "is moved away and an empty folder is in its place",
      place: async (test) => {
        const folder = await tempDir(test);
        const [root, moved] = [join(folder, "data"), join(folder, "moved")];
        return {
          root,
          away: async () => {
            await rename(root, moved);
            await mkdir(root);
            return root;
          },
          back: async () => {
            await rm(root, { recursive: true });
            await rename(moved, root);
          },
        };
      },
    },
    {
      name: "is moved away and another mirror's is in its place",
      place: async (test) => {
        const folder = await tempDir(test);
        const [root, moved] = [join(folder, "data"), join(folder, "moved")];
        const elsewhere = join(folder, "other");
        const other = await StorageScene.open(test, elsewhere);
        other.addImages("other", LAYERS);
        await other.start(test);
        await other.untilStored("other", LAYERS);
        return {
          root,
          away: async () => {
            await rename(root, moved);
            // A kill leaves its log, which the next open recovers or removes.
            await other.mirror.kill();
            await rename(elsewhere, root);
            return root;
          },
          back: async () => {
            await rename(root, elsewhere);
            await rename(moved, root);
          },
        };
      },
    },
    {
      name: "is deleted",
      place: async (test) => {
        const root = join(await tempDir(test), "data");
        return {
          root,
          away: async () => {
            await rm(root, { recursive: true, maxRetries: 5 });
            return undefined;
          },
        };
      },
    },
    {
      name: "is unmounted",
      place: async (test) => {
        const disk = await LoopDisk.mount(test, 64);
        return {
          root: join(disk.path, "data"),
          away: async () => {
            await disk.unmount();
            return disk.path;
          },
          back: () => disk.mountAgain(),
        };
      },
    },
    {
      name: "has another lock file",
      place: async (test) => {
        const root = join(await tempDir(test), "data");
        const [lock, kept] = [join(root, "lock"), join(root, "kept-lock")];
        return {
          root,
          says: /^degraded: the lock file was replaced or removed$/,
          away: async () => {
            await rename(lock, kept);
            await writeFile(lock, "");
            return undefined;
          },
          back: () => rename(kept, lock),
        };
      },
    },
  ];

void describe("a storage root that is removed under a running mirror", () => {
  for (const { name, place } of SETTINGS) {
    void it(`${name}: pulls pass through, nothing is written in its place, and it is used again once restored`, async (test) => {
      const { root, away, back, says = AWAY } = await place(test);
      const scene = await StorageScene.open(test, root);
      for (const image of ["kept", "later", "last"]) {
        scene.addImages(image, LAYERS);
      }
      const big = seededBlob("root-away", 24 * MIB);
      const barrier = new Barrier();
      const { "one.test": one } = scene.upstreams;
      one.content.addBlob("app", big);
      one.when(
        { kind: "blob", reference: big.digest },
        { hold: { at: 12 * MIB, barrier } },
      );
      await scene.start(test);
      const { mirror } = scene;
      await scene.untilStored("kept", LAYERS);
      const running = startRequest({
        port: mirror.port,
        path: `/v2/one.test/app/blobs/${big.digest}`,
        body: "hash",
      });
      await barrier.arrived(1);

      const inPlace = await away();
      const before = inPlace && (await listTree(inPlace));
      // Without a request.
      const noticedMs = await scene.untilLogged(/^the storage is not used/);
      test.diagnostic(`noticed after ${noticedMs} ms`);
      assert.ok(noticedMs < NOTICED_WITHIN_MS, `${noticedMs} ms`);
      assert.match(await scene.storage(), says);
      barrier.release();
      const { status, end, sha256 } = await running.response;
      assert.deepEqual([status, end, sha256], [200, "complete", big.digest]);
      // The storage is not available: nothing is served from it and nothing is stored.
      assert.ok((await scene.pull("kept", LAYERS)) > 0);
      assert.ok((await scene.pull("later", LAYERS)) > 0);
      assert.ok((await scene.pull("later", LAYERS)) > 0);
      assert.equal(await scene.degraded(), "1");
      const status200 = await fetch(`${mirror.operatorOrigin}/api/v1/status`);
      assert.equal(status200.status, 200);

      if (back !== undefined) {
        assert.deepEqual(inPlace && (await listTree(inPlace)), before);
        await back();
        await scene.untilLogged(/^the storage root is at its path/);
        assert.equal(await scene.storage(), "ok");
        assert.equal(await scene.degraded(), "0");
        assert.equal(await scene.pull("kept", LAYERS), 0);
        await scene.untilStored("last", LAYERS);
        await away();
        await scene.untilStorage(says);
      }
      // A stop does not touch the folder at its path either.
      const atEnd = inPlace && (await listTree(inPlace));
      assert.equal((await mirror.terminate()).code, 0);
      assert.deepEqual(inPlace && (await listTree(inPlace)), atEnd);
      if (back === undefined) return;
      await back();
      await mirror.start();
      assert.equal(await scene.pull("kept", LAYERS), 0);
      assert.equal(await scene.pull("last", LAYERS), 0);
      await mirror.terminate();
      const scrub = await runCommand(process.execPath, [
        join(import.meta.dirname, "../../src/main.ts"),
        "scrub",
        "--json",
        "--config",
        mirror.configFile,
      ]);
      const { findings } = JSON.parse(scrub.stdout) as { findings: unknown };
      assert.deepEqual(findings, []);
    });
  }
});
