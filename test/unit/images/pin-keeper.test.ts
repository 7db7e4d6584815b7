import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { keyOf, tag } from "../../contract/metadata-index-contract.ts";
import { PinKeeper } from "../../../src/images/pin-keeper.ts";
import type { ManifestAnswer } from "../../../src/mirror/manifests/manifest-answers.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import type { RepositoryKey } from "../../../src/oci/reference.ts";
import type { BlobRow } from "../../../src/storage/blob-index.ts";
import type { RootName } from "../../../src/storage/root-index.ts";
import { cacheStatus } from "../../../src/telemetry/cache-status.ts";
import { buildImage, type TestImage } from "../../support/image-builder.ts";
import { quietLog } from "../../support/pulling-mirror.ts";

const slow = buildImage({
  seed: "slow",
  layers: [100, 200, 300, 400, 500, 600],
});
const quick = buildImage({ seed: "quick", layers: [700] });
const images = new Map([
  ["slow", slow],
  ["quick", quick],
]);

/** A pin keeper with two lost pins, and a mirror that delays the blobs of the first one. */
class Scene {
  readonly fetched = new Set<Digest>();
  readonly pins: RootName[] = [...images.keys()].map((name) => ({
    key: keyOf("docker.io", name),
    reference: { kind: "tag", tag: tag("1") },
  }));
  readonly release = Promise.withResolvers<void>();
  /** Ends the time limit for one pin. */
  endTimeLimit: () => void = () => {};
  readonly keeper = new PinKeeper({
    mirror: this,
    index: this,
    hasUpstream: () => true,
    log: quietLog,
    schedule: (run, delayMs) => {
      if (delayMs > 60_000) this.endTimeLimit = run;
      return () => {};
    },
  });

  async listLostPins(): Promise<readonly RootName[]> {
    return this.pins;
  }

  async settleServed(): Promise<void> {}

  async getManifest({ repository }: RepositoryKey): Promise<ManifestAnswer> {
    const image = images.get(repository);
    assert(image !== undefined);
    this.fetched.add(image.manifest.digest);
    return {
      ...image.manifest,
      status: cacheStatus.stored(200),
      ageMs: undefined,
      isStale: false,
    };
  }

  async fetchBlob({ repository }: RepositoryKey, digest: Digest) {
    if (repository === "slow") await this.release.promise;
    this.fetched.add(digest);
  }

  async getLinkedBlob(
    _key: unknown,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    return this.fetched.has(digest)
      ? {
          digest,
          sizeBytes: 1,
          mediaType: undefined,
          storedAtMs: 0,
          verifiedAtMs: 0,
        }
      : undefined;
  }

  hasWhole({ blobs }: TestImage): boolean {
    return blobs.every(({ digest }) => this.fetched.has(digest));
  }
}

async function someTurns(): Promise<void> {
  for (let left = 20; left > 0; left -= 1) await nextTurn();
}

void describe("the pin keeper", () => {
  void it("continues with the next lost pin after a time limit, and still completes a slow image", async () => {
    const scene = new Scene();
    scene.keeper.start();
    await someTurns();
    assert.equal(scene.hasWhole(quick), false);
    scene.endTimeLimit();
    await someTurns();
    assert.equal(scene.hasWhole(quick), true);
    assert.equal(scene.hasWhole(slow), false);
    scene.release.resolve();
    await someTurns();
    assert.equal(scene.hasWhole(slow), true);
    await scene.keeper.stop();
  });

  void it("stops while an image is being fetched", async () => {
    const scene = new Scene();
    scene.keeper.start();
    await someTurns();
    await scene.keeper.stop();
    assert.equal(scene.hasWhole(quick), false);
  });
});
