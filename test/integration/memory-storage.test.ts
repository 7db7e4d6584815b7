import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Evictor } from "../../src/retention/evictor.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { buildImage } from "../support/image-builder.ts";
import { createMemoryStorage } from "../support/memory-storage.ts";
import { mirrorOver, pull, quietLog } from "../support/pulling-mirror.ts";
import { ScriptedRegistry } from "../support/scripted-client.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";

const app = keyOf("docker.io", "library/app");
const latest = tag("latest");
const image = buildImage({ seed: "memory", layers: [300_000, 3_000_000] });

function setUp(test: AfterTest) {
  const storage = createMemoryStorage();
  const registry = new ScriptedRegistry();
  registry.push(app, image, latest);
  const clock = new FakeClock();
  const mirror = mirrorOver(storage, registry, { clock });
  releaseAfter(test, async () => {
    await mirror.close();
    await storage.close();
  });
  return { storage, registry, clock, mirror };
}

async function storedDigests(storage: Storage): Promise<Set<string>> {
  const digests = new Set<string>();
  await storage.blobs.list((page) => {
    for (const { digest } of page) digests.add(digest);
  });
  return digests;
}

void describe("a mirror with in-memory storage", () => {
  void it("stores content, serves it without the upstream, and evicts it", async (test) => {
    const { storage, registry, clock, mirror } = setUp(test);
    const { digest } = image.manifest;
    assert.equal(await pull(mirror, app, latest), digest);
    registry.isDown = true;
    assert.equal(await pull(mirror, app, latest), digest);
    assert.deepEqual(
      await storedDigests(storage),
      new Set([digest, ...image.blobs.map((blob) => blob.digest)]),
    );
    const { index, blobs, upkeep } = storage;
    const evictor = new Evictor({
      index,
      blobs,
      limits: {
        maxSize: { bytes: Number.MAX_SAFE_INTEGER },
        minFree: { bytes: 0 },
        maxIdleMs: Infinity,
        isKept: () => false,
      },
      readSpace: () => upkeep.readSpace(),
      clock,
      log: quietLog,
    });
    releaseAfter(test, () => evictor.stop());
    clock.advance(120_000);
    const evicted = await evictor.evict({ toBytes: 0, isDryRun: false });
    assert.equal(evicted.length, 1);
    assert.deepEqual(await storedDigests(storage), new Set());
  });

  void it("fetches a blob again if a scrub found wrong bytes", async (test) => {
    const { storage, mirror } = setUp(test);
    await pull(mirror, app, latest);
    const [layer] = image.layers;
    assert(layer !== undefined);
    await storage.blobs.put(layer.digest, Buffer.alloc(layer.bytes.length));
    const { findings } = await storage.upkeep.scrub({ isRepair: true });
    assert.deepEqual(
      findings.map(({ code, digest }) => [code, digest]),
      [["blob-corrupt", layer.digest]],
    );
    assert.equal(await pull(mirror, app, latest), image.manifest.digest);
    const after = await storage.upkeep.scrub({ isRepair: false });
    assert.equal(after.blobs, 1 + image.blobs.length);
    assert.deepEqual(after.findings, []);
  });
});
