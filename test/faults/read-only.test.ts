import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { buildImage } from "../support/image-builder.ts";
import { LoopDisk } from "../support/loop-disk.ts";
import { type RawResponse, rawRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";

const cached = buildImage({ seed: "ro/cached", layers: [300_000] });
const other = buildImage({ seed: "ro/other", layers: [300_000] });

void describe("a disk that turns read-only while the mirror runs", () => {
  void it("serves stored content and passes the rest through", async (test) => {
    const disk = await LoopDisk.mount(test, 64);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", cached, "cached");
    upstream.content.addImage("library/app", other, "other");
    const mirror = await ChildMirror.start(test, {
      config: {
        ...hubConfig(upstream.origin),
        storage: { root: join(disk.path, "data") },
      },
    });
    const get = (path: string): Promise<RawResponse> =>
      rawRequest({
        port: mirror.port,
        path: `/v2/library/app/${path}`,
        body: "hash",
      });
    const pull = async (name: string, image: typeof cached): Promise<void> => {
      for (const [path, digest] of [
        [`manifests/${name}`, image.manifest.digest],
        ...image.blobs.map(({ digest: of }) => [`blobs/${of}`, of]),
      ] as const) {
        const answer = await get(path ?? "");
        assert.deepEqual(
          [answer.status, answer.end, answer.sha256],
          [200, "complete", digest],
        );
      }
    };
    const fills = (outcome: string): number =>
      mirror.logs.filter(
        (line) =>
          line["msg"] === "a blob fill has ended" &&
          line["outcome"] === outcome,
      ).length;
    await pull("cached", cached);
    while (fills("stored") < 2) await delay(20);
    await disk.shutDown();
    upstream.forgetRequests();
    await pull("cached", cached);
    assert.equal(upstream.count({ kind: "blob" }), 0);
    await pull("other", other);
    assert.equal(mirror.child.isRunning, true);
    const ready = await fetch(`${mirror.operatorOrigin}/readyz`);
    assert.equal(ready.status, 200);
    assert.match(await ready.text(), /degraded: (EROFS|EIO)/);
  });
});
