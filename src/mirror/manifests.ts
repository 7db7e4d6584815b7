import type { BlobStore } from "../cache/blob-store.ts";
import type { HotManifests } from "../cache/hot-manifests.ts";
import type {
  MetadataIndex,
  RepositoryKey,
  TagRow,
} from "../cache/metadata-index.ts";
import { type Digest, digestAlgorithm, digestOf } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import { parseManifest } from "../oci/manifest.ts";
import { isSchema1 } from "../oci/media-type.ts";
import { type Reference, referenceText, type Tag } from "../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { UpstreamManifest } from "../upstream/client.ts";
import { UpstreamError } from "../upstream/errors.ts";
import {
  judgeUpstreamFailure,
  negativeRefusal,
  offlineRefusal,
} from "./answers.ts";
import { judgeFreshness } from "./freshness.ts";
import type { Links } from "./links.ts";
import {
  ANSWER_DEADLINE_MS,
  type MirroredUpstream,
} from "./mirrored-upstream.ts";
import type { NegativeAnswers } from "./negative-answers.ts";
import { SingleFlight } from "./single-flight.ts";
import type { StaleGate } from "./stale-gate.ts";

/** A manifest's bytes and what they are. */
export interface Manifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
  /** Undefined only for schema 1, whose digest is not that of its bytes. */
  readonly digest: Digest | undefined;
}

export interface ManifestAnswer extends Manifest {
  readonly status: CacheStatus;
  /** Since the upstream last confirmed it; undefined where it has just been asked. */
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}

/** What asking the upstream for a tag brought. */
type Revalidation =
  | { readonly kind: "unchanged"; readonly row: TagRow }
  | { readonly kind: "stored"; readonly manifest: Manifest }
  | { readonly kind: "unstored"; readonly manifest: Manifest };

/** Manifests by tag and by digest: fresh, revalidated, stale or fetched. */
export class Manifests {
  readonly #store: BlobStore;
  readonly #index: MetadataIndex;
  readonly #hot: HotManifests;
  readonly #links: Links;
  readonly #negative: NegativeAnswers;
  readonly #gate: StaleGate;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #isOffline: boolean;
  readonly #tags = new SingleFlight<Revalidation>();
  readonly #digests = new SingleFlight<Manifest>();

  constructor(options: {
    store: BlobStore;
    index: MetadataIndex;
    hot: HotManifests;
    links: Links;
    negative: NegativeAnswers;
    gate: StaleGate;
    clock: Clock;
    log: Logger;
    isOffline: boolean;
  }) {
    this.#store = options.store;
    this.#index = options.index;
    this.#hot = options.hot;
    this.#links = options.links;
    this.#negative = options.negative;
    this.#gate = options.gate;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#isOffline = options.isOffline;
  }

  /** @throws Refusal, RegistryError, UpstreamError */
  get(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference,
  ): Promise<ManifestAnswer> {
    return reference.kind === "tag"
      ? this.#byTag(upstream, key, reference.tag)
      : this.#byDigest(upstream, key, reference.digest);
  }

  /** Waits for what runs behind answers that were given. */
  async drain(): Promise<void> {
    await Promise.all([this.#tags.drain(), this.#digests.drain()]);
  }

  // --- by digest -------------------------------------------------------------------------------

  async #byDigest(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<ManifestAnswer> {
    const stored = await this.#readServable(upstream, key, digest);
    if (stored !== undefined) {
      this.#index.touchBlob(digest, this.#clock.nowMs());
      return current(stored, cacheStatus.hit());
    }
    if (this.#isOffline) throw offlineRefusal("manifest");
    if (this.#negative.has(key, digest)) throw negativeRefusal("manifest");
    const flight = `${key.upstream} ${key.repository} ${digest}`;
    const isJoin = this.#digests.has(flight);
    const manifest = await this.#digests.run(flight, () =>
      this.#fetch(upstream, key, digest, deadline()),
    );
    return current(
      manifest,
      isJoin ? cacheStatus.collapsed() : cacheStatus.stored(200),
    );
  }

  /** A stored manifest that the repository may serve; storage and index that fail have none. */
  async #readServable(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<Manifest | undefined> {
    let isLinked: boolean;
    let row;
    try {
      row = await this.#index.getLinkedBlob(key, digest);
      isLinked = row !== undefined;
      row ??= await this.#index.getBlob(digest);
    } catch {
      return undefined;
    }
    if (row?.mediaType === undefined) return undefined;
    if (!isLinked) await this.#links.prove(upstream, key, digest, "manifest");
    return this.#read(digest, row.sizeBytes, row.mediaType);
  }

  async #read(
    digest: Digest,
    sizeBytes: number,
    mediaType: string,
  ): Promise<Manifest | undefined> {
    const hot = this.#hot.get(digest);
    if (hot !== undefined) return { ...hot, digest };
    try {
      const bytes = await this.#store.read(digest, sizeBytes);
      // Small enough to be hashed each time it comes from the disk.
      if (
        bytes === undefined ||
        digestOf(bytes, digestAlgorithm(digest)) !== digest
      ) {
        await this.#index.forgetBlob(digest);
        return undefined;
      }
      this.#hot.set(digest, { bytes, mediaType });
      return { bytes, mediaType, digest };
    } catch {
      return undefined;
    }
  }

  /** Fetches by digest, verifies, stores. */
  async #fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<Manifest> {
    const fetched = await this.#noting(
      upstream,
      key,
      { kind: "digest", digest },
      signal,
    );
    if (digestOf(fetched.bytes, digestAlgorithm(digest)) !== digest) {
      throw new UpstreamError(
        "digest-mismatch",
        "the manifest's bytes are not those of the digest",
        { upstream: upstream.name },
      );
    }
    return this.#keep(key, digest, fetched);
  }

  async #noting(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference,
    signal: AbortSignal,
  ): Promise<UpstreamManifest> {
    try {
      return await upstream.client.getManifest(
        key.repository,
        reference,
        signal,
      );
    } catch (error) {
      this.#note(upstream, key, reference, error);
      throw error;
    }
  }

  /** Remembers that the upstream has no such manifest. */
  #note(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference,
    error: unknown,
  ): void {
    if (error instanceof UpstreamError && error.kind === "not-found") {
      this.#negative.add(
        key,
        referenceText(reference),
        upstream.freshness.notFoundTtlMs,
      );
    }
  }

  /** Stores verified bytes. A storage that fails keeps nothing and spoils nothing. */
  async #keep(
    key: RepositoryKey,
    digest: Digest,
    fetched: UpstreamManifest,
  ): Promise<Manifest> {
    const parsed = parseManifest(fetched.bytes, fetched.mediaType);
    if (!parsed.ok) {
      throw new RegistryError("MANIFEST_INVALID", { detail: parsed.detail });
    }
    const { mediaType } = parsed;
    const { bytes } = fetched;
    try {
      await this.#store.put(digest, bytes);
      await this.#index.recordBlob(key, {
        digest,
        sizeBytes: bytes.length,
        storedAtMs: this.#clock.nowMs(),
        manifest: {
          mediaType,
          children: parsed.children,
          subject: parsed.subject,
        },
      });
      this.#hot.set(digest, { bytes, mediaType });
    } catch (error) {
      this.#log.warn(
        { err: error, upstream: key.upstream, digest },
        "a manifest could not be stored",
      );
    }
    return { bytes, mediaType, digest };
  }

  // --- by tag ----------------------------------------------------------------------------------

  async #byTag(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<ManifestAnswer> {
    const row = await this.#index.getTag(key, tag).catch(() => undefined);
    const stored =
      row === undefined
        ? undefined
        : await this.#read(row.digest, row.sizeBytes, row.mediaType);
    if (row === undefined || stored === undefined) {
      return this.#missingTag(upstream, key, tag);
    }
    const nowMs = this.#clock.nowMs();
    const freshness = judgeFreshness(
      row.verifiedAtMs,
      nowMs,
      upstream.freshness.ttlMs(key.repository, tag),
      upstream.freshness,
    );
    this.#index.touchTag(key, tag, nowMs);
    const ageMs = Math.max(0, nowMs - row.verifiedAtMs);
    if (freshness.state === "fresh") {
      return {
        ...stored,
        status: cacheStatus.hit(freshness.ttlMs),
        ageMs,
        isStale: false,
      };
    }
    const stale = (status: CacheStatus): ManifestAnswer => ({
      ...stored,
      status,
      ageMs,
      isStale: true,
    });
    const revalidate = () => this.#revalidate(upstream, key, tag, row);
    const isComplete = () =>
      this.#index.isComplete(key, row.digest).catch(() => false);

    if (this.#isOffline) {
      if (freshness.ifError && (await isComplete())) {
        return stale(cacheStatus.staleHit());
      }
      throw offlineRefusal("manifest");
    }
    if (freshness.whileRevalidating) {
      this.#gate.runBehind(revalidate());
      return stale(cacheStatus.staleHit());
    }
    const mayBeStale = freshness.ifError && (await isComplete());
    const result = await this.#gate.revalidate(
      upstream,
      revalidate,
      mayBeStale,
    );
    switch (result.kind) {
      case "done":
        return answerRevalidated(result.value, stored);
      case "not-asked":
        return stale(cacheStatus.staleHit());
      case "too-slow":
        return stale(cacheStatus.staleAfterFailure(undefined));
      case "failed":
        return this.#afterFailure(upstream, key, tag, result.error, {
          stale,
          isAllowed: freshness.ifError,
          isComplete: mayBeStale,
        });
      default:
        return result satisfies never;
    }
  }

  async #missingTag(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<ManifestAnswer> {
    if (this.#isOffline) throw offlineRefusal("manifest");
    if (this.#negative.has(key, tag)) throw negativeRefusal("manifest");
    const isJoin = this.#tags.has(flightOf(key, tag));
    const found = await this.#revalidate(upstream, key, tag, undefined);
    if (found.kind === "unchanged") {
      throw new RegistryError("MANIFEST_UNKNOWN");
    }
    return current(
      found.manifest,
      isJoin
        ? cacheStatus.collapsed()
        : found.kind === "stored"
          ? cacheStatus.stored(200)
          : cacheStatus.notStored(200),
    );
  }

  async #afterFailure(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    error: unknown,
    offer: {
      readonly stale: (status: CacheStatus) => ManifestAnswer;
      readonly isAllowed: boolean;
      readonly isComplete: boolean;
    },
  ): Promise<ManifestAnswer> {
    if (!(error instanceof UpstreamError)) throw error;
    if (error.kind === "not-found") {
      await this.#index.removeTag(key, tag).catch(() => {});
      throw error;
    }
    const verdict = judgeUpstreamFailure(error, {
      wanted: "manifest",
      hasCredentials: upstream.client.hasCredentials,
    });
    const isOffered =
      offer.isAllowed &&
      (verdict.stale === "always" ||
        (verdict.stale === "when-complete" && offer.isComplete));
    if (!isOffered) throw error;
    return offer.stale(
      error.kind === "breaker-open"
        ? cacheStatus.staleHit()
        : cacheStatus.staleAfterFailure(error.status),
    );
  }

  /** One HEAD for all who ask at once, and the body by its digest where that is new. */
  #revalidate(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
  ): Promise<Revalidation> {
    return this.#tags.run(flightOf(key, tag), () =>
      this.#resolve(upstream, key, tag, known, deadline()),
    );
  }

  async #resolve(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
    signal: AbortSignal,
  ): Promise<Revalidation> {
    const digest = await this.#headDigest(upstream, key, tag, signal);
    if (digest === undefined) {
      return this.#resolveByBody(upstream, key, tag, known, signal);
    }
    if (known?.digest === digest) return this.#confirm(key, tag, known);
    const manifest =
      (await this.#readProven(key, digest)) ??
      (await this.#fetch(upstream, key, digest, signal));
    await this.#point(key, tag, digest);
    return { kind: "stored", manifest };
  }

  /** A stored manifest that the upstream has just named for this repository: proof enough to link it. */
  async #readProven(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<Manifest | undefined> {
    try {
      const row = await this.#index.getBlob(digest);
      if (row?.mediaType === undefined) return undefined;
      await this.#index.link(key, digest);
      return await this.#read(digest, row.sizeBytes, row.mediaType);
    } catch {
      return undefined;
    }
  }

  /** @returns undefined where a HEAD does not tell the digest, so that the body must */
  async #headDigest(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    signal: AbortSignal,
  ): Promise<Digest | undefined> {
    try {
      const head = await upstream.client.headManifest(
        key.repository,
        { kind: "tag", tag },
        signal,
      );
      // The digest of a schema 1 manifest is not that of its bytes.
      return head.mediaType !== undefined && isSchema1(head.mediaType)
        ? undefined
        : head.digest;
    } catch (error) {
      if (error instanceof UpstreamError && error.status === 405) {
        return undefined;
      }
      this.#note(upstream, key, { kind: "tag", tag }, error);
      throw error;
    }
  }

  async #resolveByBody(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
    signal: AbortSignal,
  ): Promise<Revalidation> {
    const reference: Reference = { kind: "tag", tag };
    const fetched = await this.#noting(upstream, key, reference, signal);
    if (fetched.mediaType !== undefined && isSchema1(fetched.mediaType)) {
      return {
        kind: "unstored",
        manifest: {
          bytes: fetched.bytes,
          mediaType: fetched.mediaType,
          digest: fetched.digestHeader,
        },
      };
    }
    const digest = digestOf(
      fetched.bytes,
      fetched.digestHeader === undefined
        ? "sha256"
        : digestAlgorithm(fetched.digestHeader),
    );
    if (fetched.digestHeader !== undefined && fetched.digestHeader !== digest) {
      throw new UpstreamError(
        "digest-mismatch",
        "the manifest's bytes are not those of its digest header",
        { upstream: upstream.name },
      );
    }
    if (known?.digest === digest) return this.#confirm(key, tag, known);
    const manifest = await this.#keep(key, digest, fetched);
    await this.#point(key, tag, digest);
    return { kind: "stored", manifest };
  }

  async #confirm(
    key: RepositoryKey,
    tag: Tag,
    known: TagRow,
  ): Promise<Revalidation> {
    await this.#point(key, tag, known.digest);
    return { kind: "unchanged", row: known };
  }

  /** Only ever called with a digest whose bytes were hashed. */
  async #point(key: RepositoryKey, tag: Tag, digest: Digest): Promise<void> {
    this.#negative.delete(key, tag);
    try {
      await this.#index.putTag(key, tag, digest, this.#clock.nowMs());
    } catch (error) {
      this.#log.warn(
        { err: error, upstream: key.upstream, digest },
        "a tag could not be stored",
      );
    }
  }
}

function current(manifest: Manifest, status: CacheStatus): ManifestAnswer {
  return { ...manifest, status, ageMs: undefined, isStale: false };
}

function answerRevalidated(
  result: Revalidation,
  stored: Manifest,
): ManifestAnswer {
  switch (result.kind) {
    case "unchanged":
      return current(stored, cacheStatus.revalidated(200));
    case "stored":
      return current(result.manifest, cacheStatus.replaced(200));
    case "unstored":
      return current(result.manifest, cacheStatus.notStored(200));
    default:
      return result satisfies never;
  }
}

function flightOf(key: RepositoryKey, tag: Tag): string {
  return `${key.upstream} ${key.repository} ${tag}`;
}

function deadline(): AbortSignal {
  return AbortSignal.timeout(ANSWER_DEADLINE_MS);
}
