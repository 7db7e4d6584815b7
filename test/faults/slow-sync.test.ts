import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { buildImage, seededBlob } from "../support/image-builder.ts";
import { type RawResponse, rawRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { FOREVER_US, SlowDisk } from "../support/slow-disk.ts";
import { tempDir } from "../support/temp-dir.ts";

const cached = buildImage({ seed: "slow/cached", layers: [300_000] });
const cold = buildImage({ seed: "slow/cold", layers: [70_000] });
/** More than the threads of the pool. */
const COLD_BLOBS = 20;
const coldBlobs = Array.from({ length: COLD_BLOBS }, (_, i) =>
  seededBlob(`slow/${i}`, 100_000 + i),
);
/** Syncs of the index by the main thread. */
const PAGES_OF_REQUESTS = 150;

void describe("a disk that takes minutes for a sync", () => {
  void it("delays no request: neither hits, nor cold pulls, nor readiness", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", cached, "cached");
    upstream.content.addImage("library/app", cold, "cold");
    for (const blob of coldBlobs) upstream.content.addBlob("library/app", blob);
    const mirror = await ChildMirror.start(test, {
      config: {
        upstreams: {
          "docker.io": {
            default: true,
            endpoints: [upstream.origin],
            concurrency: 2 * COLD_BLOBS,
          },
        },
      },
    });
    const assertPulled = async (
      path: string,
      digest: string,
    ): Promise<void> => {
      const { status, end, sha256 } = await get(mirror, path);
      assert.deepEqual([status, end, sha256], [200, "complete", digest]);
    };
    const pull = async (name: string, image: typeof cached): Promise<void> => {
      await assertPulled(`manifests/${name}`, image.manifest.digest);
      for (const { digest } of image.blobs) {
        await assertPulled(`blobs/${digest}`, digest);
      }
    };
    const stored = (): number =>
      mirror.logs.filter(
        ({ msg, outcome }) =>
          msg === "a blob fill has ended" && outcome === "stored",
      ).length;
    await pull("cached", cached);
    while (stored() < cached.blobs.length) await delay(20);

    const disk = await SlowDisk.hold(test, mirror.child.pid ?? 0);
    const storedBefore = stored();
    await Promise.all(
      coldBlobs.map(({ digest }) => assertPulled(`blobs/${digest}`, digest)),
    );
    await pull("cold", cold);
    upstream.forgetRequests();
    await disk.untilHeld((threads) => threads.length > 1);
    // And the checkpoint of the index, seconds after the first write.
    await disk.untilHeld((threads) =>
      threads.some((name) => !name.startsWith("libuv")),
    );
    for (let i = 0; i < COLD_BLOBS; i += 1) await pull("cached", cached);
    assert.equal(upstream.count({ kind: "blob" }), 0);
    const ready = await fetch(`${mirror.operatorOrigin}/readyz`);
    assert.equal(ready.status, 200);
    assert.match(await ready.text(), /degraded: ETIMEDOUT/);
    assert.equal(stored(), storedBefore);
    assert(disk.heldThreads().length > 1);

    await disk.release();
    while (stored() < storedBefore + COLD_BLOBS + cold.blobs.length) {
      await delay(20);
    }
    upstream.forgetRequests();
    for (const { digest } of coldBlobs) {
      await assertPulled(`blobs/${digest}`, digest);
    }
    assert.equal(upstream.count({ kind: "blob", method: "GET" }), 0);
  });
});

void describe("a disk that takes minutes to read the index", () => {
  void it("does not delay readiness and requests during the check after a kill", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", cached, "cached");
    const dir = await tempDir(test);
    const first = await ChildMirror.start(test, {
      dir,
      config: hubConfig(upstream.origin),
    });
    const paths = [
      "manifests/cached",
      ...cached.blobs.map(({ digest }) => `blobs/${digest}`),
    ];
    for (const path of paths) await get(first, path);
    const rows = (): number =>
      first.logs.filter(({ msg }) => msg === "a blob fill has ended").length;
    while (rows() < cached.blobs.length) await delay(20);
    await first.kill();
    const { indexFile } = diskLayout(first.root);
    const database = new Database(indexFile);
    // Some hundred pages for the check, none of which a request needs.
    database.exec(`
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
      INSERT INTO digests (digest) SELECT randomblob(32) FROM n`);
    database.close();

    const mirror = await ChildMirror.start(test, {
      dir,
      config: hubConfig(upstream.origin),
      wrapper: [
        "strace",
        "-f",
        "-o/dev/null",
        `-P${indexFile}`,
        "-etrace=pread64",
        // Calls are counted per thread, and only the check makes this many.
        `-einject=pread64:delay_enter=${FOREVER_US}:when=${PAGES_OF_REQUESTS}+`,
      ],
    });
    upstream.forgetRequests();
    for (const path of paths) {
      const { status, end } = await get(mirror, path);
      assert.deepEqual([status, end], [200, "complete"]);
    }
    assert.equal(upstream.count({ kind: "blob" }), 0);
    const ready = await fetch(`${mirror.operatorOrigin}/readyz`);
    assert.equal(ready.status, 200);
    assert.match(await ready.text(), /ok, recovering/);
    assert.deepEqual(
      mirror.logs.filter(({ msg }) => msg === "index and blobs were compared"),
      [],
    );
    await mirror.kill();
  });
});

function get(mirror: ChildMirror, path: string): Promise<RawResponse> {
  return rawRequest({
    port: mirror.port,
    path: `/v2/library/app/${path}`,
    body: "hash",
  });
}
