import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ManifestWrites } from "../../../src/hosted/content/manifest-writes.ts";
import type { HostedEvent } from "../../../src/hosted/hosted.ts";
import { parseImageText } from "../../../src/images/image-reference.ts";
import { tagImage, type TagImageParts } from "../../../src/images/tag-image.ts";
import { RegistryError } from "../../../src/oci/errors.ts";
import type { HostedIndex } from "../../../src/storage/hosted-index.ts";
import { HotManifests } from "../../../src/storage/hot-manifests.ts";
import { openLocalStorage } from "../../../src/storage/local/open-local-storage.ts";
import type { MetadataIndex } from "../../../src/storage/metadata-index.ts";
import type { TrackedBlobStore } from "../../../src/storage/tracked-blob-store.ts";
import { systemClock } from "../../../src/telemetry/clock.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { pushImage, pushManifest } from "../../support/hosted-images.ts";
import {
  buildImage,
  buildMultiArch,
  type TestIndex,
} from "../../support/image-builder.ts";
import {
  storeBlob,
  storeImage,
  storeIndex,
  storeManifest,
} from "../../support/stored-images.ts";
import { tempDir } from "../../support/temp-dir.ts";

const image = buildImage({ seed: "image", layers: [5_000, 6_000] });
const long = buildImage({ seed: "long", layers: [700], algorithm: "sha512" });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });
const local = hostedConfig({ immutableTags: ["**:v*"] });
const SENDER = {
  user: undefined,
  client: "127.0.0.1",
  userAgent: undefined,
  host: undefined,
  method: "POST",
};

const ignore = (): void => undefined;
const reservedBytes = (): number => 0;

interface Scene {
  readonly index: HostedIndex & MetadataIndex;
  readonly blobs: TrackedBlobStore;
  readonly events: HostedEvent[];
  readonly tag: (
    source: string,
    target: string,
    parts?: Partial<TagImageParts>,
  ) => Promise<string>;
  readonly has: (name: string) => Promise<boolean>;
}

async function setUp(test: AfterTest): Promise<Scene> {
  const storage = await openLocalStorage({
    root: await tempDir(test),
    clock: systemClock,
    log: { info: ignore, warn: ignore, error: ignore },
  });
  releaseAfter(test, () => storage.close());
  const { index, blobs } = storage;
  const events: HostedEvent[] = [];
  const writes = new ManifestWrites({
    store: blobs,
    index,
    hot: new HotManifests(),
    clock: systemClock,
    reservedBytes,
  });
  return {
    index,
    blobs,
    events,
    tag: (source, target, parts = {}) => {
      const { key, reference } = nameOf(target);
      assert(reference.kind === "tag");
      return tagImage(
        {
          index,
          blobs,
          putManifest: (repository, pushed) => writes.put(repository, pushed),
          events: (event) => void events.push(event),
          findHosted: (name) => (name === "local" ? local : undefined),
          sharesBlobs: (name) => name === "a.example",
          reservedBytes,
          clock: systemClock,
          ...parts,
        },
        nameOf(source),
        { key, tag: reference.tag },
        SENDER,
      );
    },
    has: async (name) => {
      const { key, reference } = nameOf(name);
      return (await index.getRoot(key, reference)) !== undefined;
    },
  };
}

function nameOf(text: string) {
  const named = parseImageText(text);
  assert(named !== undefined, text);
  return named;
}

function keyOf(name: string) {
  return nameOf(`${name}:any`).key;
}

function tagOf(text: string) {
  const { reference } = nameOf(`a/b:${text}`);
  assert(reference.kind === "tag");
  return reference.tag;
}

async function storedManifests(
  { index }: Scene,
  name: string,
  { manifest, images }: TestIndex,
): Promise<number> {
  const rows = await Promise.all(
    [manifest, ...images.map((one) => one.manifest)].map(({ digest }) =>
      index.getLinkedBlob(keyOf(name), digest),
    ),
  );
  return rows.filter((row) => row !== undefined).length;
}

function refusedWith(code: string, status: number, detail?: string) {
  return (error: unknown): boolean => {
    assert(error instanceof RegistryError, String(error));
    assert.deepEqual([error.code, error.status], [code, status]);
    if (detail !== undefined) assert.equal(error.detail, detail);
    return true;
  };
}

void describe("a tag of a stored image", () => {
  void it("stores manifests bottom-up, each reported as a push, and the tag with the last one", async (test) => {
    const scene = await setUp(test);
    await storeIndex(scene, keyOf("a.example/app"), multi, tagOf("1"));
    const digest = await scene.tag("a.example/app:1", "local/app:2");
    assert.equal(digest, multi.manifest.digest);
    assert.equal(await scene.has("local/app:2"), true);
    assert.equal(await storedManifests(scene, "local/app", multi), 3);
    assert.deepEqual(
      scene.events.map((event) => [event.action, event.tag]),
      [
        ["push", undefined],
        ["push", undefined],
        ["push", "2"],
      ],
    );
    assert.equal(scene.events.at(-1)?.digest, multi.manifest.digest);
    assert.equal(scene.events.at(-1)?.sender, SENDER);
  });

  void it("keeps the digest's algorithm", async (test) => {
    const scene = await setUp(test);
    await storeImage(scene, keyOf("a.example/app"), long, tagOf("1"));
    assert.equal(
      await scene.tag("a.example/app:1", "local/app:1"),
      long.manifest.digest,
    );
    const row = await scene.index.getTag(keyOf("local/app"), tagOf("1"));
    assert.equal(row?.digest, long.manifest.digest);
  });

  void it("takes blobs that only another repository of the upstream has, unless they need a proof", async (test) => {
    for (const [upstream, isAllowed] of [
      ["a.example", true],
      ["b.example", false],
    ] as const) {
      const scene = await setUp(test);
      const key = keyOf(`${upstream}/app`);
      await storeManifest(scene, key, image.manifest);
      await scene.index.putTag(key, tagOf("1"), image.manifest.digest, 1);
      for (const blob of image.blobs) {
        await storeBlob(scene, keyOf(`${upstream}/other`), blob);
      }
      const tagged = scene.tag(`${upstream}/app:1`, "local/app:1");
      if (isAllowed) {
        assert.equal(await tagged, image.manifest.digest);
      } else {
        await assert.rejects(tagged, refusedWith("MANIFEST_BLOB_UNKNOWN", 404));
      }
    }
  });

  void it("is refused for an immutable tag, and the manifests stored before are deleted again", async (test) => {
    const scene = await setUp(test);
    await storeIndex(scene, keyOf("a.example/app"), multi, tagOf("1"));
    await pushImage(scene, keyOf("local/app"), image, [tagOf("v1")]);
    await assert.rejects(
      scene.tag("a.example/app:1", "local/app:v1"),
      refusedWith("DENIED", 409, "local/app: the tag v1 is immutable"),
    );
    assert.equal(await storedManifests(scene, "local/app", multi), 0);
    const row = await scene.index.getTag(keyOf("local/app"), tagOf("v1"));
    assert.equal(row?.digest, image.manifest.digest);
    // The same digest again is not a move.
    assert.equal(
      await scene.tag("local/app:v1", "local/app:v1"),
      image.manifest.digest,
    );
  });

  void it("keeps manifests that the repository had before, or that a push has tagged since", async (test) => {
    const scene = await setUp(test);
    const [first, second] = multi.images;
    assert(first !== undefined && second !== undefined);
    const key = keyOf("local/app");
    await storeIndex(scene, keyOf("a.example/app"), multi, tagOf("1"));
    await pushImage(scene, key, image, [tagOf("v1")]);
    await pushImage(scene, key, first, []);
    await assert.rejects(
      scene.tag("a.example/app:1", "local/app:v1", {
        events: ({ digest }) => {
          assert.notEqual(digest, multi.manifest.digest);
        },
        putManifest: async (repository, pushed) => {
          const { digest } = second.manifest;
          if (pushed.tags.length > 0) {
            await pushManifest(scene, key, second.manifest, [tagOf("kept")]);
            throw new RegistryError("DENIED", { status: 409 });
          }
          assert(pushed.reference.kind === "digest");
          const isSecond = pushed.reference.digest === digest;
          const { manifest } = isSecond ? second : first;
          await pushManifest(scene, repository.key, manifest, []);
          return {
            digest: manifest.digest,
            tags: [],
            subject: undefined,
            mediaType: manifest.mediaType,
            sizeBytes: manifest.sizeBytes,
          };
        },
      }),
      refusedWith("DENIED", 409),
    );
    assert.equal(await scene.has("local/app:kept"), true);
    assert.equal(await storedManifests(scene, "local/app", multi), 2);
  });

  void it("keeps manifests that an index without a tag, pushed since, names", async (test) => {
    const scene = await setUp(test);
    const key = keyOf("local/app");
    await storeIndex(scene, keyOf("a.example/app"), multi, tagOf("1"));
    await assert.rejects(
      scene.tag("a.example/app:1", "local/app:2", {
        putManifest: async (repository, { reference, tags }) => {
          assert(reference.kind === "digest");
          const manifest = [multi, ...multi.images]
            .map((one) => one.manifest)
            .find(({ digest }) => digest === reference.digest);
          assert(manifest !== undefined);
          await pushManifest(scene, repository.key, manifest, []);
          if (tags.length > 0) throw new RegistryError("DENIED");
          const { digest, mediaType, sizeBytes } = manifest;
          return { digest, mediaType, sizeBytes, tags, subject: undefined };
        },
      }),
      refusedWith("DENIED", 403),
    );
    assert.equal(await storedManifests(scene, "local/app", multi), 3);
    assert.equal(
      (await scene.index.listUntaggedManifests(key, 10, undefined)).length,
      1,
    );
  });

  void it("names the parts that are missing, and writes nothing", async (test) => {
    const scene = await setUp(test);
    const [first, second] = multi.images;
    assert(first !== undefined && second !== undefined);
    const key = keyOf("a.example/app");
    await storeManifest(scene, key, multi.manifest);
    await scene.index.putTag(key, tagOf("1"), multi.manifest.digest, 1);
    await storeImage(scene, key, first, tagOf("first"));
    await assert.rejects(
      scene.tag("a.example/app:1", "local/app:1"),
      refusedWith(
        "MANIFEST_BLOB_UNKNOWN",
        404,
        `a.example/app:1 is not complete: ${second.manifest.digest} not stored; pull every platform through this server first, or name one platform by its digest`,
      ),
    );
    assert.deepEqual(await scene.index.listHostedRegistries(), []);
    assert.deepEqual(scene.events, []);
    // One platform is complete.
    assert.equal(
      await scene.tag(`a.example/app@${first.manifest.digest}`, "local/app:1"),
      first.manifest.digest,
    );
  });

  void it("names a blob that was evicted after the parts were found", async (test) => {
    const scene = await setUp(test);
    await storeImage(scene, keyOf("a.example/app"), image, tagOf("1"));
    await assert.rejects(
      scene.tag("a.example/app:1", "local/app:1", {
        index: {
          getTag: (key, tag) => scene.index.getTag(key, tag),
          getLinkedBlob: (key, digest) =>
            scene.index.getLinkedBlob(key, digest),
          listBlobRepositories: (digest, limit, last) =>
            scene.index.listBlobRepositories(digest, limit, last),
          deleteHostedManifest: (key, digest, isImmutable) =>
            scene.index.deleteHostedManifest(key, digest, isImmutable),
          listUntaggedManifests: (key, limit, last) =>
            scene.index.listUntaggedManifests(key, limit, last),
          mountHostedBlob: () => Promise.resolve("absent"),
        },
      }),
      refusedWith("MANIFEST_BLOB_UNKNOWN", 404),
    );
    assert.equal(await scene.has("local/app:1"), false);
  });

  void it("is refused for an image with too many manifests and blobs", async (test) => {
    const scene = await setUp(test);
    await storeIndex(scene, keyOf("a.example/app"), multi, tagOf("1"));
    const parts = 3 + multi.images.flatMap(({ blobs }) => blobs).length;
    await assert.rejects(
      scene.tag("a.example/app:1", "local/app:1", { maxParts: parts - 3 }),
      refusedWith("MANIFEST_INVALID", 400),
    );
    await scene.tag("a.example/app:1", "local/app:1", { maxParts: parts });
  });
});
