import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, it } from "node:test";
import { buildImage } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";

const IMAGE = buildImage({ seed: "pinned", layers: [70_000, 300] });
const { digest } = IMAGE.manifest;

interface Shown {
  readonly complete: boolean | undefined;
  readonly pinned: boolean | undefined;
}

async function shown(mirror: TestMirror, name: string): Promise<Shown> {
  const { body } = await mirror.operate("GET", `/images/${name}`);
  const { complete, pinned } = body as Shown;
  return { complete, pinned };
}

/** Waits until the image is complete, which takes one fetch after the start. */
async function untilWhole(mirror: TestMirror, name: string): Promise<Shown> {
  for (let left = 500; ; left -= 1) {
    const now = await shown(mirror, name);
    if (now.complete === true || left === 0) return now;
    await nextTurn();
  }
}

void describe("a pinned image whose manifest was lost", () => {
  for (const reference of [":v", `@${digest}`]) {
    void it(`as ${reference.slice(0, 8)} is fetched again after the start, pinned as it was`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addImage("a", IMAGE, "v");
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      const pulled = reference === ":v" ? "v" : digest;
      await pullImage(mirror, "a", pulled);
      const name = `${upstreamOf(upstream).name}/a${reference}`;
      const pin = await mirror.operate("PUT", `/images/${name}/pin`);
      assert.equal(pin.status, 200);
      await mirror.close();
      const [layer] = IMAGE.layers;
      assert(layer !== undefined);
      await rm(mirror.blobFile(digest));
      await rm(mirror.blobFile(layer.digest));
      await rm(join(mirror.root, "index.sqlite"));
      upstream.forgetRequests();
      await mirror.open();
      assert.deepEqual(await untilWhole(mirror, name), {
        complete: true,
        pinned: true,
      });
      assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 1);
      // The links of the stored blobs are lost, so the blobs are fetched again.
      const blobs = upstream.count({ kind: "blob", method: "GET" });
      assert.equal(blobs, IMAGE.blobs.length);
    });
  }

  void it("is pinned again by the pull that restores it", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await pullImage(mirror, "a", "v");
    const name = `${upstreamOf(upstream).name}/a:v`;
    await mirror.operate("PUT", `/images/${name}/pin`);
    await mirror.restart();
    await rm(mirror.blobFile(digest));
    // This pull finds the file missing and drops the row.
    await pullImage(mirror, "a", "v");
    assert.deepEqual(await shown(mirror, name), {
      complete: true,
      pinned: true,
    });
  });
});
