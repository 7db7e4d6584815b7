import assert from "node:assert/strict";
import { appendFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { releaseAfter } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { buildImage, seededBlob } from "../support/image-builder.ts";
import { quietLog } from "../support/pulling-mirror.ts";
import { type RawResponse, rawRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { storeImage } from "../support/stored-images.ts";
import { Tmpfs } from "../support/tmpfs.ts";

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;

/** Writes are not retried for 5 s after a fault. */
const STORAGE_REST_MS = 5_500;

async function storedBlobs(root: string): Promise<string[]> {
  return readdir(join(root, "blobs/sha256"));
}

async function degraded(mirror: ChildMirror): Promise<string | undefined> {
  return /^entrepot_storage_degraded (\d)$/m.exec(await mirror.metrics())?.[1];
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function assertWhole(response: RawResponse, digest: string): void {
  assert.equal(response.status, 200);
  assert.equal(response.end, "complete");
  assert.equal(response.sha256, digest);
}

void describe("a full disk", () => {
  void it("passes pulls through, verified and uncached, and stores again once there is space", async (test) => {
    const disk = await Tmpfs.mount(test, "size=28m");
    const root = join(disk.path, "data");
    const blob = seededBlob("full-disk", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    // With a known size it would be passed through from the first byte.
    upstream.when({ kind: "blob" }, { framing: "chunked" });
    const mirror = await ChildMirror.start(test, {
      config: { ...hubConfig(upstream.origin), storage: { root } },
    });
    const request = {
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    } as const;
    // The first pull fills the disk; the second finds writes suspended.
    for (const response of await Promise.all([
      rawRequest(request),
      rawRequest(request),
    ])) {
      assertWhole(response, blob.digest);
    }
    while (!mirror.logs.some(({ msg }) => msg === "a blob fill has ended"))
      await delay(20);
    const second = await rawRequest(request);
    assertWhole(second, blob.digest);
    assert.equal(
      second.headers["cache-status"],
      "entrepot; fwd=miss; fwd-status=200",
    );
    assert.deepEqual(await storedBlobs(root), []);
    assert.equal(await degraded(mirror), "1");

    await disk.remount("size=128m");
    await delay(STORAGE_REST_MS);
    assertWhole(await rawRequest(request), blob.digest);
    await upstream.ended({ kind: "blob" });
    assertWhole(await rawRequest(request), blob.digest);
    assert.deepEqual(await storedBlobs(root), [blob.digest.slice(7)]);
    assert.equal(await degraded(mirror), "0");
  });

  void it("sends every byte to a slow reader if the disk runs full meanwhile", async (test) => {
    const disk = await Tmpfs.mount(test, "size=28m");
    const blob = seededBlob("full-slow", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    // With a known size it would be passed through from the first byte.
    upstream.when({ kind: "blob" }, { framing: "chunked" });
    const mirror = await ChildMirror.start(test, {
      config: {
        ...hubConfig(upstream.origin),
        storage: { root: join(disk.path, "data") },
      },
    });
    const request = {
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    } as const;
    const [slow, fast] = await Promise.all([
      rawRequest({ ...request, bytesPerSecond: 8 * MIB }),
      rawRequest(request),
    ]);
    assertWhole(slow, blob.digest);
    assertWhole(fast, blob.digest);
  });

  for (const options of ["size=600k", "size=64m,nr_inodes=12"]) {
    void it(`completes the pull of an image with ${options}`, async (test) => {
      const disk = await Tmpfs.mount(test, options);
      const image = buildImage({ seed: "no-room", layers: [MIB, 3 * MIB] });
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addImage("library/app", image, "1");
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
      assertWhole(await get("manifests/1"), image.manifest.digest);
      for (const { digest } of [image.config, ...image.layers]) {
        assertWhole(await get(`blobs/${digest}`), digest);
      }
      assert.equal(mirror.child.isRunning, true);
    });
  }
});

void describe("a disk with space for one of two images", () => {
  void it("stores one image, passes the other through, and stores it once there is space", async (test) => {
    const disk = await Tmpfs.mount(test, "size=16m");
    const root = join(disk.path, "data");
    const images = ["one", "two"].map((seed) =>
      buildImage({ seed: `reserve/${seed}`, layers: [9 * MIB] }),
    );
    const upstream = await ScriptedUpstream.start(test);
    for (const [at, image] of images.entries()) {
      upstream.content.addImage("library/app", image, `v${at}`);
    }
    const mirror = await ChildMirror.start(test, {
      config: {
        ...hubConfig(upstream.origin),
        storage: { root },
        eviction: { maxSize: "100%", minFree: "0B" },
      },
    });
    const get = (path: string): Promise<RawResponse> =>
      rawRequest({
        port: mirror.port,
        path: `/v2/library/app/${path}`,
        body: "hash",
      });
    for (const at of images.keys()) await get(`manifests/v${at}`);
    const layers = images.flatMap((image) => image.layers);
    await Promise.all(
      layers.map(async ({ digest }) =>
        assertWhole(await get(`blobs/${digest}`), digest),
      ),
    );
    const outcomes = (): string[] =>
      mirror.logs
        .filter(({ msg }) => msg === "a blob fill has ended")
        .map(({ outcome }) => String(outcome));
    while (outcomes().length < layers.length) await delay(20);
    // The disk never ran full: the second fill was rejected before it wrote.
    assert.deepEqual(outcomes().toSorted(compareText), ["passed", "stored"]);
    const readiness = async (): Promise<string> => {
      const answer = await fetch(`${mirror.operatorOrigin}/readyz`);
      assert.equal(answer.status, 200);
      return answer.text();
    };
    assert.match(await readiness(), /degraded: ENOSPC/);
    assert.equal(await degraded(mirror), "1");

    await disk.remount("size=64m");
    for (const { digest } of layers) {
      assertWhole(await get(`blobs/${digest}`), digest);
    }
    while (outcomes().length < layers.length + 1) await delay(20);
    assert.deepEqual(outcomes().at(-1), "stored");
    assert.doesNotMatch(await readiness(), /degraded/);
    assert.equal(await degraded(mirror), "0");
  });
});

void describe("an index on a disk without a free byte", () => {
  void it("deletes rows by releasing the ballast, and restores it once there is space", async (test) => {
    const disk = await Tmpfs.mount(test, "size=32m");
    const root = join(disk.path, "data");
    const cache = await openLocalStorage({
      root,
      clock: systemClock,
      log: quietLog,
    });
    releaseAfter(test, () => cache.close());
    await cache.upkeep.recovered();
    await cache.upkeep.restoreBallast();
    const app = keyOf("docker.io", "library/app");
    const images = Array.from({ length: 30 }, (_, at) =>
      buildImage({ seed: `full/${at}`, layers: [2_000] }),
    );
    for (const [at, image] of images.entries()) {
      await storeImage(cache, app, image, tag(`v${at}`));
    }
    const filler = join(disk.path, "filler");
    await writeFile(filler, Buffer.alloc(64 * MIB)).catch(() => {});
    await appendFile(filler, Buffer.alloc(4_096)).catch(() => {});
    for (const { manifest, blobs } of images) {
      for (const { digest } of [manifest, ...blobs]) {
        await cache.index.forgetBlob(digest);
      }
    }
    assert.equal((await cache.index.totals()).blobs, 0);
    assert.equal(cache.upkeep.isOutOfRoom, true);
    await rm(filler);
    await cache.upkeep.restoreBallast();
    assert.equal(cache.upkeep.isOutOfRoom, false);
    assert.deepEqual(
      (await cache.upkeep.scrub({ isRepair: false })).findings.filter(
        ({ code }) => code !== "row-missing",
      ),
      [],
    );
  });
});

void describe("a disk that another process fills to the last byte", () => {
  void it("still serves stored content and passes the rest through", async (test) => {
    const disk = await Tmpfs.mount(test, "size=64m");
    const root = join(disk.path, "data");
    const [kept, other] = [seededBlob("kept", MIB), seededBlob("other", MIB)];
    const image = buildImage({ seed: "after", layers: [1000] });
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", kept);
    upstream.content.addBlob("library/big", other);
    upstream.content.addImage("library/big", image, "1");
    const mirror = await ChildMirror.start(test, {
      config: { ...hubConfig(upstream.origin), storage: { root } },
    });
    const get = (path: string): Promise<RawResponse> =>
      rawRequest({
        port: mirror.port,
        path: `/v2/library/big/${path}`,
        body: "hash",
      });
    assertWhole(await get(`blobs/${kept.digest}`), kept.digest);
    while (
      !mirror.logs.some(
        ({ msg, outcome }) =>
          msg === "a blob fill has ended" && outcome === "stored",
      )
    ) {
      await delay(20);
    }
    upstream.forgetRequests();
    await writeFile(join(disk.path, "filler"), Buffer.alloc(64 * MIB)).catch(
      () => {},
    );
    for (const framing of ["content-length", "chunked"] as const) {
      upstream.when({ reference: other.digest }, { framing }, { times: 1 });
      const passed = await get(`blobs/${other.digest}`);
      assertWhole(passed, other.digest);
      // The previous process may still be ending.
      assert.doesNotMatch(passed.headers["cache-status"] ?? "", /stored/);
    }
    assertWhole(await get(`blobs/${kept.digest}`), kept.digest);
    assertWhole(await get("manifests/1"), image.manifest.digest);
    assert.equal(upstream.count({ reference: kept.digest }), 0);
    const ready = await fetch(`${mirror.operatorOrigin}/readyz`);
    assert.equal(ready.status, 200);
    assert.match(await ready.text(), /degraded: ENOSPC/);
  });
});
