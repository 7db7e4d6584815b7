import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { keyOf, tag } from "../../contract/metadata-index-contract.ts";
import {
  type Admission,
  PATTERN_ADMISSION,
} from "../../../src/mirror/admission.ts";
import { Refusal } from "../../../src/mirror/answers.ts";
import type { FreshnessPolicy } from "../../../src/mirror/freshness.ts";
import { createMirror, type Mirror } from "../../../src/mirror/mirror.ts";
import type { MirroredUpstream } from "../../../src/mirror/mirrored-upstream.ts";
import { RegistryError } from "../../../src/oci/errors.ts";
import type { Reference } from "../../../src/oci/reference.ts";
import { HotManifests } from "../../../src/storage/hot-manifests.ts";
import {
  type LocalStorage,
  openLocalStorage,
} from "../../../src/storage/local/open-local-storage.ts";
import {
  type CacheOutcome,
  cacheStatus,
} from "../../../src/telemetry/cache-status.ts";
import { createMetrics } from "../../../src/telemetry/metrics.ts";
import { UpstreamError } from "../../../src/wire/errors.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import { quietLog } from "../../support/pulling-mirror.ts";
import { ScriptedRegistry } from "../../support/scripted-client.ts";
import { tempDir } from "../../support/temp-dir.ts";

const TTL_MS = 60_000;
const app = keyOf("docker.io", "library/app");
const image = buildImage({ seed: "admission", layers: [300] });
const moved = buildImage({ seed: "admission-moved", layers: [300] });
const byTag: Reference = { kind: "tag", tag: tag("latest") };
const byDigest: Reference = { kind: "digest", digest: image.manifest.digest };

const FRESHNESS: FreshnessPolicy = {
  tagTtlMs: TTL_MS,
  staleIfGoneMs: Infinity,
  staleIfErrorMs: Infinity,
  staleWhileRevalidateMs: 0,
  notFoundTtlMs: TTL_MS,
  ttlMs: () => TTL_MS,
};

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

/** A mirror over a cache on disk, with an admission that a test can replace at any time. */
class Scene {
  readonly registry = new ScriptedRegistry();
  readonly clock: FakeClock;
  readonly #cache: LocalStorage;
  admission: Admission = PATTERN_ADMISSION;
  /** Number of admitted or refused manifests. */
  judged = 0;
  isOffline = false;
  isGone = false;
  readonly freshness: Writable<FreshnessPolicy> = { ...FRESHNESS };
  mirror: Mirror;

  static async open(test: AfterTest): Promise<Scene> {
    const root = await tempDir(test);
    const clock = new FakeClock();
    const cache = await openLocalStorage({ root, clock, log: quietLog });
    const scene = new Scene(cache, clock);
    releaseAfter(test, async () => {
      await scene.mirror.close();
      await cache.close();
    });
    return scene;
  }

  private constructor(cache: LocalStorage, clock: FakeClock) {
    this.clock = clock;
    this.#cache = cache;
    this.registry.push(app, image, tag("latest"));
    this.mirror = this.#newMirror();
  }

  /** Pulls the image, so that its manifest is in memory and in the storage. */
  async pull(): Promise<void> {
    await this.mirror.getManifest(app, byTag);
  }

  /** Replaces the mirror, which empties the memory and keeps the storage. */
  async restart(): Promise<void> {
    await this.mirror.close();
    this.mirror = this.#newMirror();
  }

  refuse(): void {
    this.admission = { ...PATTERN_ADMISSION, admit: refusing };
  }

  #newMirror(): Mirror {
    return createMirror({
      upstreams: [this.#upstream()],
      blobs: this.#cache.blobs,
      index: this.#cache.index,
      hot: new HotManifests(),
      clock: this.clock,
      log: quietLog,
      metrics: createMetrics("test"),
      isOffline: () => this.isOffline,
      admission: {
        mayRequest: (...request) => this.admission.mayRequest(...request),
        admit: (...candidate) => {
          this.judged += 1;
          return this.admission.admit(...candidate);
        },
      },
    });
  }

  #upstream(): MirroredUpstream {
    const upstream = this.registry.upstream("docker.io");
    const { client } = upstream;
    const assertThere = (): void => {
      if (!this.isGone) return;
      throw new UpstreamError("not-found", "gone", {
        upstream: "docker.io",
        status: 404,
      });
    };
    return {
      ...upstream,
      freshness: this.freshness,
      client: {
        ...client,
        headManifest: async (...request) => {
          assertThere();
          return client.headManifest(...request);
        },
        getManifest: async (...request) => {
          assertThere();
          return client.getManifest(...request);
        },
      },
    };
  }
}

const refusing: Admission["admit"] = () =>
  new Refusal(
    new RegistryError("DENIED", { detail: "refused by a test" }),
    cacheStatus.refused(),
  );

/** The ways in which a manifest becomes a response. */
const PATHS: readonly {
  readonly name: string;
  readonly reference: Reference;
  readonly outcome: CacheOutcome;
  readonly prepare: (scene: Scene) => Promise<void> | void;
  readonly isRecalled?: boolean;
}[] = [
  {
    name: "fetched by tag",
    reference: byTag,
    outcome: "miss",
    prepare: () => {},
  },
  {
    name: "fetched by digest",
    reference: byDigest,
    outcome: "miss",
    prepare: () => {},
  },
  {
    name: "in memory and requested by tag",
    reference: byTag,
    outcome: "hit",
    prepare: async (scene) => {
      await scene.pull();
      // Reads the row into memory.
      await scene.mirror.getManifest(app, byTag);
    },
    isRecalled: true,
  },
  {
    name: "in memory and requested by digest",
    reference: byDigest,
    outcome: "hit",
    prepare: async (scene) => {
      await scene.pull();
      // Reads the row into memory.
      await scene.mirror.getManifest(app, byDigest);
    },
    isRecalled: true,
  },
  {
    name: "stored and requested by tag",
    reference: byTag,
    outcome: "hit",
    prepare: async (scene) => {
      await scene.pull();
      await scene.restart();
    },
  },
  {
    name: "stored and requested by digest",
    reference: byDigest,
    outcome: "hit",
    prepare: async (scene) => {
      await scene.pull();
      await scene.restart();
    },
  },
  {
    name: "confirmed by the upstream",
    reference: byTag,
    outcome: "revalidated",
    prepare: async (scene) => {
      await scene.pull();
      scene.clock.advance(2 * TTL_MS);
    },
  },
  {
    name: "of a tag that moved",
    reference: byTag,
    outcome: "miss",
    prepare: async (scene) => {
      await scene.pull();
      scene.registry.push(app, moved, tag("latest"));
      scene.clock.advance(2 * TTL_MS);
    },
  },
  {
    name: "stale during the revalidation",
    reference: byTag,
    outcome: "stale",
    prepare: async (scene) => {
      scene.freshness.staleWhileRevalidateMs = Infinity;
      await scene.pull();
      scene.clock.advance(2 * TTL_MS);
    },
  },
  {
    name: "stale because the upstream failed",
    reference: byTag,
    outcome: "stale",
    prepare: async (scene) => {
      await scene.pull();
      for (const { digest } of image.blobs) {
        await scene.mirror.fetchBlob(app, digest);
      }
      scene.clock.advance(2 * TTL_MS);
      scene.registry.isDown = true;
    },
  },
  {
    name: "stale because the mirror is offline",
    reference: byTag,
    outcome: "stale",
    prepare: async (scene) => {
      await scene.pull();
      for (const { digest } of image.blobs) {
        await scene.mirror.fetchBlob(app, digest);
      }
      scene.clock.advance(2 * TTL_MS);
      scene.isOffline = true;
    },
  },
  {
    name: "of a tag that the upstream removed",
    reference: byTag,
    outcome: "stale",
    prepare: async (scene) => {
      await scene.pull();
      scene.clock.advance(2 * TTL_MS);
      scene.isGone = true;
    },
  },
];

function isUnknown(error: unknown): boolean {
  return error instanceof Refusal && error.error.code === "MANIFEST_UNKNOWN";
}

function isDenied(error: unknown): boolean {
  return error instanceof Refusal && error.error.code === "DENIED";
}

void describe("the admission of manifests", () => {
  for (const { name, reference, outcome, prepare, isRecalled } of PATHS) {
    for (const isHead of [false, true]) {
      const method = isHead ? "HEAD" : "GET";
      void it(`is applied to a ${method} of a manifest ${name}`, async (test) => {
        const scene = await Scene.open(test);
        await prepare(scene);
        scene.judged = 0;
        const recalled = scene.mirror.recallManifest(app, reference, isHead);
        assert.equal(
          recalled?.status.outcome,
          isRecalled ? outcome : undefined,
        );
        const answer = await scene.mirror.getManifest(app, reference, isHead);
        assert.equal(answer.status.outcome, outcome);
        assert.equal(scene.judged, isRecalled ? 2 : 1);
      });

      void it(`refuses a ${method} of a manifest ${name}`, async (test) => {
        const scene = await Scene.open(test);
        await prepare(scene);
        scene.refuse();
        assert.equal(
          scene.mirror.recallManifest(app, reference, isHead),
          undefined,
        );
        await assert.rejects(
          scene.mirror.getManifest(app, reference, isHead),
          isDenied,
        );
      });
    }
  }

  void it("refuses every client that waits for the same fetch", async (test) => {
    const scene = await Scene.open(test);
    scene.refuse();
    const requests = [byTag, byTag, byDigest].map((reference) =>
      scene.mirror.getManifest(app, reference),
    );
    for (const request of requests) await assert.rejects(request, isDenied);
    assert.equal(scene.judged, 3);
  });

  void it("may return a promise, and may replace the answer", async (test) => {
    const scene = await Scene.open(test);
    await scene.pull();
    // Reads the row into memory.
    await scene.pull();
    scene.admission = {
      ...PATTERN_ADMISSION,
      admit: async (_upstream, _key, _reference, manifest) => ({
        ...manifest,
        isStale: true,
      }),
    };
    assert.equal(scene.mirror.recallManifest(app, byTag), undefined);
    const answer = await scene.mirror.getManifest(app, byTag);
    assert.equal(answer.isStale, true);
    assert.equal(answer.status.outcome, "hit");
  });

  void it("fails the request and nothing else if its promise is rejected", async (test) => {
    const scene = await Scene.open(test);
    await scene.pull();
    // Reads the row into memory.
    await scene.pull();
    scene.admission = {
      ...PATTERN_ADMISSION,
      admit: () => Promise.reject(new Error("the judge does not answer")),
    };
    scene.judged = 0;
    assert.equal(scene.mirror.recallManifest(app, byTag), undefined);
    assert.equal(scene.judged, 1);
    // An unhandled rejection would fail this test, and end the process of a mirror.
    await nextTurn();
    await assert.rejects(
      scene.mirror.getManifest(app, byTag),
      (error) => error instanceof Refusal && error.error.code === "UNKNOWN",
    );
  });

  void it("answers a forbidden request without a lookup or an upstream request", async (test) => {
    const scene = await Scene.open(test);
    scene.admission = { ...PATTERN_ADMISSION, mayRequest: () => false };
    assert.equal(scene.mirror.recallManifest(app, byTag), undefined);
    await assert.rejects(scene.mirror.getManifest(app, byTag), isUnknown);
    assert.deepEqual(scene.registry.requests, []);
    assert.equal(scene.judged, 0);
  });
});
