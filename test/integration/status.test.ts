import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MirrorStatus } from "../../src/http/operator/api-status.ts";
import { Barrier } from "../support/barrier.ts";
import { buildImage, seededBlob } from "../support/image-builder.ts";
import { startMirror, upstreamOf } from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";

const HALF = 4 * 1024 * 1024;

void describe("the status of the mirror", () => {
  void it("has the running downloads with their clients", async (test) => {
    const blob = seededBlob("slow", 2 * HALF);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/app", blob);
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob", method: "GET" },
      { hold: { at: HALF, barrier } },
      { times: 1 },
    );
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const status = async (): Promise<MirrorStatus> =>
      (await mirror.operate("GET", "/status")).body as MirrorStatus;
    const path = `/v2/library/app/blobs/${blob.digest}`;
    const clients = [mirror.start(path), mirror.start(path)];
    for (const client of clients) await client.received(HALF / 2);
    const { running } = await status();
    const [fill] = running.fills;
    assert.deepEqual(
      { ...fill, bytes: 0 },
      {
        ref: `registry.example/library/app@${blob.digest}`,
        bytes: 0,
        bytesTotal: 2 * HALF,
        clients: 2,
      },
    );
    assert.ok(fill !== undefined && fill.bytes > 0 && fill.bytes <= HALF);
    assert.equal(running.fillCount, 1);
    barrier.release();
    for (const client of clients) await client.response;
    await mirror.settled();
    assert.deepEqual((await status()).running, {
      fillCount: 0,
      fills: [],
      jobs: [],
    });
  });

  void it("has the time since the last pull of the newest evicted image", async (test) => {
    const image = buildImage({ seed: "evicted", layers: [5_000] });
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", image, "1");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await pullImage(mirror, "library/app", "1");
    mirror.clock.advance(90_000);
    await mirror.operate("POST", "/evict", { toBytes: 0 });
    const { body } = await mirror.operate("GET", "/status");
    const { storage } = body as MirrorStatus;
    assert.equal(storage.evictedImages, 1);
    assert.equal(storage.oldestEvictedAgeSeconds, 90);
    assert.ok(storage.freeBytes !== null && storage.freeBytes > 0);
  });

  void it("reports a storage root that is away as degraded", async (test) => {
    const mirror = await startMirror(test, []);
    await mirror.loseStorage();
    const { body } = await mirror.operate("GET", "/status");
    const { health } = body as MirrorStatus;
    assert.equal(health.ready, true);
    assert.match(health.detail["storage"] ?? "", /^degraded: /);
  });
});
