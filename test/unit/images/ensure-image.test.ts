import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { keyOf, tag } from "../../contract/metadata-index-contract.ts";
import {
  createEnsureImage,
  type EnsureOptions,
  type EnsureProgress,
} from "../../../src/images/ensure-image.ts";
import type { ManifestAnswer } from "../../../src/mirror/manifests/manifest-answers.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { RegistryError } from "../../../src/oci/errors.ts";
import type { Reference } from "../../../src/oci/reference.ts";
import type { BlobRow } from "../../../src/storage/blob-index.ts";
import { cacheStatus } from "../../../src/telemetry/cache-status.ts";
import {
  AMD64,
  ARM64,
  buildImage,
  buildMultiArch,
  manifestOf,
  type TestImage,
  type TestManifest,
} from "../../support/image-builder.ts";

const app = keyOf("docker.io", "library/app");
const byTag: Reference = { kind: "tag", tag: tag("latest") };
const image = buildImage({ seed: "ensure", layers: [1_000, 2_000, 3_000] });
const multi = buildMultiArch({
  seed: "ensure",
  platforms: [AMD64, ARM64, { os: "linux", architecture: "arm" }],
});

/** A mirror and its index in memory; stores requested content immediately, unless a test holds it. */
class FakeCache {
  readonly stored = new Set<Digest>();
  readonly requests: Digest[] = [];
  readonly #manifests = new Map<Digest, TestManifest>();
  #tagged: Digest | undefined;
  /** Waited for before a blob is stored. */
  onBlob: (digest: Digest) => Promise<void> = async () => {};
  keepsManifests = true;
  /** Runs when the caller waits for manifests that are still being stored. */
  onSettle: () => void = () => {};

  /** Adds manifests; the tag points to the first of them. */
  constructor(...manifests: readonly TestManifest[]) {
    this.#tagged = manifests[0]?.digest;
    for (const manifest of manifests) {
      this.#manifests.set(manifest.digest, manifest);
    }
  }

  receivedBytes: () => number = () => 0;

  ensure(options: Partial<EnsureOptions> = {}): Promise<Digest> {
    return this.ensureReference(byTag, options);
  }

  ensureReference(
    reference: Reference,
    options: Partial<EnsureOptions>,
  ): Promise<Digest> {
    const ensureImage = createEnsureImage({ mirror: this, index: this });
    return ensureImage(
      { key: app, reference },
      {
        platforms: "all",
        signal: new AbortController().signal,
        ...options,
      },
    );
  }

  async settleServed(): Promise<void> {
    this.onSettle();
  }

  async getManifest(
    _key: unknown,
    reference: Reference,
  ): Promise<ManifestAnswer> {
    const digest =
      reference.kind === "digest" ? reference.digest : this.#tagged;
    const found = digest && this.#manifests.get(digest);
    if (found === undefined) throw new RegistryError("MANIFEST_UNKNOWN");
    this.requests.push(found.digest);
    if (this.keepsManifests) this.stored.add(found.digest);
    return {
      ...found,
      status: cacheStatus.stored(200),
      ageMs: undefined,
      isStale: false,
    };
  }

  async fetchBlob(_key: unknown, digest: Digest): Promise<void> {
    this.requests.push(digest);
    await this.onBlob(digest);
    this.stored.add(digest);
  }

  async getLinkedBlob(
    _key: unknown,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    if (!this.stored.has(digest)) return undefined;
    return {
      digest,
      sizeBytes: 1,
      mediaType: undefined,
      storedAtMs: 0,
      verifiedAtMs: 0,
    };
  }
}

function digestsOf({ manifest, blobs }: TestImage): readonly Digest[] {
  return [manifest.digest, ...blobs.map(({ digest }) => digest)];
}

/** An index whose children have no platform. */
function indexOf(manifests: readonly TestManifest[]): TestManifest {
  const { mediaType } = multi.manifest;
  const children = manifests.map((child) => ({
    digest: child.digest,
    size: child.sizeBytes,
    mediaType: child.mediaType,
  }));
  return manifestOf(
    { schemaVersion: 2, mediaType, manifests: children },
    mediaType,
  );
}

void describe("ensureImage", () => {
  void it("stores the manifest and each blob of an image, and returns its digest", async () => {
    const cache = new FakeCache(image.manifest);
    assert.equal(await cache.ensure(), image.manifest.digest);
    assert.deepEqual(cache.stored, new Set(digestsOf(image)));
  });

  void it("requests no blob that is stored", async () => {
    const cache = new FakeCache(image.manifest);
    await cache.ensure();
    cache.requests.length = 0;
    await cache.ensure();
    assert.deepEqual(cache.requests, [image.manifest.digest]);
  });

  void it("reports the finished blobs and bytes out of the known ones", async () => {
    const reports: EnsureProgress[] = [];
    const cache = new FakeCache(image.manifest);
    await cache.ensure({ onProgress: (progress) => reports.push(progress) });
    const blobsKnown = image.blobs.length;
    const bytesKnown = image.blobs.reduce((sum, one) => sum + one.sizeBytes, 0);
    assert.deepEqual(reports[0], {
      blobsDone: 0,
      blobsKnown,
      bytesDone: 0,
      bytesKnown,
    });
    assert.equal(reports.length, blobsKnown + 1);
    assert.deepEqual(reports.at(-1), {
      blobsDone: blobsKnown,
      blobsKnown,
      bytesDone: bytesKnown,
      bytesKnown,
    });
  });

  const manifests = [
    multi.manifest,
    ...multi.images.map(({ manifest }) => manifest),
  ];
  const [amd64, arm64, arm] = multi.images;
  assert(amd64 !== undefined && arm64 !== undefined && arm !== undefined);
  const TABLE: readonly {
    readonly platforms: EnsureOptions["platforms"];
    readonly want: readonly TestImage[];
  }[] = [
    { platforms: "all", want: [amd64, arm64, arm] },
    { platforms: [], want: [] },
    { platforms: ["linux/amd64"], want: [amd64] },
    { platforms: ["linux/arm64"], want: [arm64] },
    { platforms: ["linux/arm64/v8"], want: [arm64] },
    { platforms: ["linux/arm"], want: [arm] },
    { platforms: ["linux/amd64", "linux/arm"], want: [amd64, arm] },
    { platforms: ["windows/amd64", "linux/amd64"], want: [amd64] },
    { platforms: ["linux/amd64/v1"], want: [amd64] },
  ];
  for (const { platforms, want } of TABLE) {
    const text = JSON.stringify(platforms);
    void it(`stores the children of an index for platforms ${text}`, async () => {
      const cache = new FakeCache(...manifests);
      assert.equal(await cache.ensure({ platforms }), multi.manifest.digest);
      const digests = want.flatMap(digestsOf);
      assert.deepEqual(
        cache.stored,
        new Set([multi.manifest.digest, ...digests]),
      );
    });
  }

  for (const platforms of [["linux/arm64/v9"], ["windows/amd64"]]) {
    void it(`fails if the index has none of ${platforms.join()}, and names those it has`, async () => {
      const cache = new FakeCache(...manifests);
      await assert.rejects(cache.ensure({ platforms }), {
        code: "MANIFEST_UNKNOWN",
        detail: `the image has no manifest for ${platforms.join()}; it has linux/amd64, linux/arm64/v8, linux/arm`,
      });
      assert.deepEqual(cache.stored, new Set([multi.manifest.digest]));
    });
  }

  void it("waits before a digest that is not stored is fetched, and not before others", async () => {
    const cache = new FakeCache(...manifests);
    const held: Digest[] = [];
    for (const reference of [
      byTag,
      { kind: "digest", digest: multi.manifest.digest } as const,
    ]) {
      await cache.ensureReference(reference, {
        platforms: ["linux/amd64"],
        beforeFetch: async () => void held.push(...cache.requests.slice(-1)),
      });
    }
    // Before the child, when only its index was requested; the second time everything is stored.
    assert.deepEqual(held, [multi.manifest.digest]);
  });

  void it("reports the bytes that a running download has received", async () => {
    const cache = new FakeCache(image.manifest);
    const { promise: received, resolve } = Promise.withResolvers<void>();
    cache.onBlob = async () => received;
    cache.receivedBytes = () => 7;
    const reports: number[] = [];
    await cache.ensure({
      onProgress: ({ bytesDone }) => {
        reports.push(bytesDone);
        if (bytesDone === 3 * 7) resolve();
      },
    });
    assert.ok(reports.includes(21), String(reports));
  });

  void it("finds a platform in an index within the index", async () => {
    const outer = indexOf([multi.manifest]);
    const cache = new FakeCache(outer, ...manifests);
    await cache.ensure({ platforms: ["linux/amd64"] });
    assert.deepEqual(
      cache.stored,
      new Set([outer.digest, multi.manifest.digest, ...digestsOf(amd64)]),
    );
  });

  void it("requests no blob if only manifests are requested", async () => {
    const cache = new FakeCache(...manifests);
    await cache.ensure({ isWithoutBlobs: true });
    assert.deepEqual(
      cache.requests,
      manifests.map(({ digest }) => digest),
    );
  });

  void it("runs three downloads at a time", async () => {
    const cache = new FakeCache(image.manifest);
    let running = 0;
    let most = 0;
    cache.onBlob = async () => {
      running += 1;
      most = Math.max(most, running);
      await nextTurn();
      running -= 1;
    };
    await cache.ensure();
    assert.equal(most, 3);
  });

  void it("starts no further download after one has failed", async () => {
    const cache = new FakeCache(image.manifest);
    cache.onBlob = () => Promise.reject(new RegistryError("BLOB_UNKNOWN"));
    await assert.rejects(cache.ensure(), { code: "BLOB_UNKNOWN" });
    await nextTurn();
    assert.equal(cache.requests.length, 1 + 3);
  });

  void it("fails if a manifest was answered but not stored", async () => {
    const cache = new FakeCache(image.manifest);
    cache.keepsManifests = false;
    await assert.rejects(cache.ensure(), { code: "UNAVAILABLE" });
    assert.deepEqual(cache.requests, [image.manifest.digest]);
  });

  void it("waits for a manifest that a slow disk stores after the answer", async () => {
    const cache = new FakeCache(image.manifest);
    cache.keepsManifests = false;
    cache.onSettle = () => cache.stored.add(image.manifest.digest);
    await cache.ensure();
    assert.equal(cache.requests.length, 1 + 4);
  });

  void it("fails if the image has more than a thousand manifests", async () => {
    const children = Array.from({ length: 1_000 }, (_, at) =>
      manifestOf({ schemaVersion: 2, at }, image.manifest.mediaType),
    );
    const index = indexOf(children);
    const cache = new FakeCache(index, ...children);
    await assert.rejects(cache.ensure(), { code: "MANIFEST_INVALID" });
    assert.equal(cache.requests.length, 1_000);
  });

  void it("ends when it is aborted, while running downloads continue", async () => {
    const cache = new FakeCache(image.manifest);
    const abort = new AbortController();
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    cache.onBlob = () => held;
    const ensured = cache.ensure({ signal: abort.signal });
    while (cache.requests.length < 4) await nextTurn();
    abort.abort(new Error("stopped"));
    await assert.rejects(ensured, { message: "stopped" });
    release();
    await nextTurn();
    assert.equal(cache.requests.length, 4);
    assert.equal(cache.stored.size, 4);
  });

  void it("requests no blob if it is aborted before the first one", async () => {
    const cache = new FakeCache(image.manifest);
    const signal = AbortSignal.abort(new Error("stopped"));
    await assert.rejects(cache.ensure({ signal }), { message: "stopped" });
    assert.ok(cache.requests.length <= 1);
  });
});
