import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { buildImage, seededBlob } from "../support/image-builder.ts";
import { type RawResponse, rawRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { Tmpfs } from "../support/tmpfs.ts";

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;

/** After a fault the storage is left alone for 5 s. */
const STORAGE_REST_MS = 5_500;

async function storedBlobs(root: string): Promise<string[]> {
  return readdir(join(root, "blobs/sha256"));
}

async function degraded(mirror: ChildMirror): Promise<string | undefined> {
  return /^entrepot_storage_degraded (\d)$/m.exec(await mirror.metrics())?.[1];
}

function assertWhole(response: RawResponse, digest: string): void {
  assert.equal(response.status, 200);
  assert.equal(response.end, "complete");
  assert.equal(response.sha256, digest);
}

void describe("a storage without room", () => {
  void it("passes pulls through, verified and uncached, and stores again when there is room", async (test) => {
    const disk = await Tmpfs.mount(test, "size=8m");
    const root = join(disk.path, "data");
    const blob = seededBlob("full-disk", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
    const mirror = await ChildMirror.start(test, {
      config: { ...hubConfig(upstream.origin), storage: { root } },
    });
    const request = {
      port: mirror.port,
      path: `/v2/library/big/blobs/${blob.digest}`,
      body: "hash",
    } as const;
    // The first runs full in the middle, the second finds the storage resting.
    for (const response of await Promise.all([
      rawRequest(request),
      rawRequest(request),
    ])) {
      assertWhole(response, blob.digest);
    }
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

  void it("gives a slow reader every byte when the disk runs full under it", async (test) => {
    const disk = await Tmpfs.mount(test, "size=12m");
    const blob = seededBlob("full-slow", SIZE);
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("library/big", blob);
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
    void it(`pulls a whole image with ${options}`, async (test) => {
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

void describe("a storage that somebody else fills to the last byte", () => {
  void it("goes on serving what it has and passes the rest through", async (test) => {
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
        ({ msg, outcome }) => msg === "fill" && outcome === "stored",
      )
    ) {
      await delay(20);
    }
    upstream.forgetRequests();
    await writeFile(join(disk.path, "filler"), Buffer.alloc(64 * MIB)).catch(
      () => {},
    );
    assertWhole(await get(`blobs/${other.digest}`), other.digest);
    assertWhole(await get(`blobs/${kept.digest}`), kept.digest);
    assertWhole(await get("manifests/1"), image.manifest.digest);
    assert.equal(upstream.count({ reference: kept.digest }), 0);
    const ready = await fetch(`${mirror.operatorOrigin}/readyz`);
    assert.equal(ready.status, 200);
    assert.match(await ready.text(), /degraded: ENOSPC/);
  });
});
