import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { imageOf, StorageScene } from "../support/storage-scene.ts";
import { tempDir } from "../support/temp-dir.ts";

const LAYERS = [300_000, 1_200_000];
const HUNG_FOR = "25s";

void describe("a disk that hangs for one file", () => {
  for (const { name, call } of [
    { name: "when a stored blob is opened", call: "openat" },
    { name: "when a blob is published", call: "rename" },
  ]) {
    void it(`${name}: the pull is complete within the time limit of an answer`, async (test) => {
      const root = join(await tempDir(test), "data");
      const [layer] = imageOf("one.test", "app", LAYERS).layers;
      assert(layer !== undefined);
      const scene = await StorageScene.open(test, root, {
        wrapper: [
          "strace",
          "-f",
          "-qq",
          "-o",
          "/dev/null",
          "-P",
          diskLayout(root).blobFile(layer.digest),
          "-e",
          `trace=${call}`,
          "-e",
          `inject=${call}:delay_enter=${HUNG_FOR}`,
        ],
      });
      scene.addImages("app", LAYERS);
      scene.addImages("other", LAYERS);
      await scene.start(test);
      for (let pulls = 0; pulls < 2; pulls += 1) {
        const startedAtMs = performance.now();
        await scene.pull("app", LAYERS);
        const tookMs = Math.round(performance.now() - startedAtMs);
        test.diagnostic(`a pull took ${tookMs} ms`);
        assert.ok(tookMs < 18_000, `${tookMs} ms`);
      }
      await scene.pull("other", LAYERS);
      await scene.mirror.kill();
    });
  }
});
