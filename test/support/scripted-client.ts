import { Readable } from "node:stream";
import type { MirroredUpstream } from "../../src/mirror/mirrored-upstream.ts";
import type { Digest } from "../../src/oci/digest.ts";
import type { RepositoryKey, Tag } from "../../src/oci/reference.ts";
import type { UpstreamClient } from "../../src/upstream/client.ts";
import { UpstreamError } from "../../src/wire/errors.ts";
import type { TestBlob, TestImage, TestManifest } from "./image-builder.ts";

/** A registry in this process that implements the upstream client's interface; no socket is opened. */
export class ScriptedRegistry {
  /** Requests received while the registry was up, as `manifest REPOSITORY` or `blob DIGEST`. */
  readonly requests: string[] = [];
  isDown = false;
  readonly #manifests = new Map<Digest, TestManifest>();
  readonly #blobs = new Map<Digest, TestBlob>();
  readonly #tags = new Map<string, Digest>();

  /** Points the tag to the image; the previous image remains available by its digest. */
  push(key: RepositoryKey, image: TestImage, tag: Tag): void {
    this.#manifests.set(image.manifest.digest, image.manifest);
    for (const blob of image.blobs) this.#blobs.set(blob.digest, blob);
    this.#tags.set(`${key.repository}:${tag}`, image.manifest.digest);
  }

  upstream(name: string): MirroredUpstream {
    return {
      name,
      metricLabel: name,
      concurrency: 8,
      mayPull: () => true,
      freshness: {
        tagTtlMs: 0,
        staleIfGoneMs: 0,
        staleIfErrorMs: Infinity,
        staleWhileRevalidateMs: 0,
        notFoundTtlMs: 0,
        ttlMs: () => 0,
      },
      client: this.#client(name),
    };
  }

  #client(name: string): UpstreamClient {
    const manifest = (
      repository: string,
      reference:
        | { readonly kind: "tag"; readonly tag: Tag }
        | { readonly kind: "digest"; readonly digest: Digest },
    ): TestManifest => {
      this.#ask(`manifest ${repository}`);
      const digest =
        reference.kind === "digest"
          ? reference.digest
          : this.#tags.get(`${repository}:${reference.tag}`);
      const found = digest && this.#manifests.get(digest);
      return found ?? this.#missing();
    };
    const blob = (digest: Digest): TestBlob => {
      this.#ask(`blob ${digest}`);
      return this.#blobs.get(digest) ?? this.#missing();
    };
    return {
      name,
      hasCredentials: false,
      isDown: () => this.isDown,
      isIdle: () => true,
      isBudgetSpared: () => false,
      isBudgetHalfUsed: () => false,
      accounts: () => [],
      status: () => ({
        name,
        state: "up",
        endpoints: [],
        credentials: [],
        tokensHeld: 0,
      }),
      // Async, so that an error thrown by `manifest` rejects the promise.
      headManifest: async (repository, reference) =>
        manifest(repository, reference),
      getManifest: async (repository, reference) => {
        const { bytes, mediaType, digest } = manifest(repository, reference);
        return { bytes, mediaType, digestHeader: digest };
      },
      headBlob: async (_repository, digest) => blob(digest),
      openBlob: async (_repository, digest, { offset = 0 }) => {
        const found = blob(digest);
        return {
          status: offset === 0 ? 200 : 206,
          offset,
          sizeBytes: found.sizeBytes,
          body: Readable.from([found.read(offset, found.sizeBytes - offset)], {
            objectMode: false,
          }),
          endpoint: name,
        };
      },
      listTags: async () => ({ tags: [], isWhole: true }),
      getReferrers: async () => this.#missing(),
      retire: () => {},
      close: async () => undefined,
    };
  }

  #ask(what: string): void {
    if (this.isDown) {
      throw new UpstreamError("unreachable", "it is down", {
        upstream: "test",
      });
    }
    this.requests.push(what);
  }

  #missing(): never {
    throw new UpstreamError("not-found", "not there", {
      upstream: "test",
      status: 404,
    });
  }
}
