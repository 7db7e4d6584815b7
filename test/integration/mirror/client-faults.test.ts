import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const BLOB = seededBlob("leaving", 3_000_000);
const IMAGE = buildImage({ seed: "leaving", layers: [BLOB] });
const PATH = `/v2/a/blobs/${BLOB.digest}`;

async function setUp(
  test: AfterTest,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  return { upstream, mirror };
}

async function openFiles(): Promise<number> {
  return (await readdir("/proc/self/fd")).length;
}

void describe("a client that disconnects", () => {
  for (const by of ["fin", "rst"] as const) {
    for (const atByte of [1, 100_000, BLOB.sizeBytes - 70_000]) {
      void it(`by ${by} after ${atByte} bytes does not end the download`, async (test) => {
        const { upstream, mirror } = await setUp(test);
        const barrier = new Barrier();
        upstream.when(
          { kind: "blob" },
          { hold: { at: BLOB.sizeBytes - 1, barrier } },
        );
        const left = await mirror.start(PATH, { leave: { atByte, by } })
          .response;
        assert.equal(left.end, "left");
        barrier.release();
        await mirror.settled();
        const hit = await mirror.get(PATH);
        assert.equal(cacheStatusOf(hit), "hit");
        assert.equal(hit.sha256, BLOB.digest);
        assert.equal(upstream.count(), 1);
        assert.equal(upstream.bytesSent(), BLOB.sizeBytes);
      });
    }
  }

  void it("before the upstream has answered does not end the download", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const barrier = new Barrier();
    upstream.when({}, { hold: { at: "headers", barrier } });
    const leaving = mirror.start(PATH, { timeoutMs: 50 });
    await upstream.arrived(1);
    await leaving.response;
    barrier.release();
    await mirror.settled();
    assert.equal(cacheStatusOf(await mirror.get(PATH)), "hit");
    assert.equal(upstream.count(), 1);
  });

  void it("does not affect the other clients, even if it was slow", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const barrier = new Barrier();
    const pause = { atByte: 1_000, barrier };
    const slow = mirror.start(PATH, { pause, body: "hash" });
    await barrier.arrived();
    const stayed = await Promise.all(
      Array.from({ length: 5 }, () => mirror.get(PATH)),
    );
    for (const one of stayed) assert.equal(one.sha256, BLOB.digest);
    barrier.release();
    assert.equal((await slow.response).sha256, BLOB.digest);
    assert.equal(upstream.count(), 1);
  });

  void it("repeatedly leaves no file and no socket open", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await pullImage(mirror, "a", "v");
    const fresh = Array.from({ length: 40 }, (_, i) =>
      seededBlob(`fresh ${i}`, 400_000),
    );
    for (const blob of fresh) upstream.content.addBlob("a", blob);
    await Promise.all(Array.from({ length: 10 }, () => mirror.get(PATH)));
    const before = await openFiles();
    for (let round = 0; round < 20; round++) {
      const cold = fresh
        .slice(round * 2, round * 2 + 2)
        .map((blob) => `/v2/a/blobs/${blob.digest}`);
      await Promise.all(
        [PATH, PATH, PATH, PATH, "/v2/a/manifests/v", ...cold].map(
          (path, i) =>
            mirror.start(path, {
              leave: {
                atByte: 1 + ((round * 7_919 + i * 104_729) % 300_000),
                by: (round + i) % 2 === 0 ? "fin" : "rst",
              },
              headers: i === 1 ? { Range: "bytes=1000-" } : {},
            }).response,
        ),
      );
    }
    await mirror.settled();
    // Upstream connections that are kept open.
    const spare = 12;
    const after = await openFiles();
    assert.ok(after <= before + spare, `${before} before, ${after} after`);
    await pullImage(mirror, "a", "v");
    for (const blob of fresh) {
      const got = await mirror.get(`/v2/a/blobs/${blob.digest}`);
      assert.equal(got.sha256, blob.digest);
    }
    assert.equal(upstream.count({ kind: "blob" }), 42);
  });
});
