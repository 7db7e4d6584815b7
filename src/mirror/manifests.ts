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
import type { Reference, Tag } from "../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import type { Audit } from "../telemetry/audit.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { UpstreamManifest } from "../upstream/client.ts";
import { UpstreamError } from "../upstream/errors.ts";
import {
  judgeUpstreamFailure,
  offlineRefusal,
  staleStatus,
} from "./answers.ts";
import { type Freshness, judgeFreshness } from "./freshness.ts";
import type { Links } from "./links.ts";
import {
  ANSWER_DEADLINE_MS,
  type MirroredUpstream,
} from "./mirrored-upstream.ts";
import type { NegativeAnswers } from "./negative-answers.ts";
import { SingleFlight } from "./single-flight.ts";
import { SparedTags } from "./spared-tags.ts";
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
  /** Since the upstream last confirmed it, or gave what is named by its digest; undefined where it has just been asked. */
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}

/** From the upstream; not stored where the storage failed, or its digest can't be verified. */
interface FetchedManifest extends Manifest {
  readonly isStored: boolean;
}

/** What asking the upstream for a tag brought. */
type Revalidation =
  | { readonly kind: "unchanged"; readonly row: TagRow }
  | { readonly kind: "fetched"; readonly manifest: FetchedManifest }
  /** The tag moved, and the upstream's budget is kept for what is not cached at all. */
  | { readonly kind: "spared"; readonly row: TagRow };

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
  readonly #metrics: Metrics;
  readonly #audit: Audit;
  readonly #isOffline: boolean;
  readonly #tags = new SingleFlight<Revalidation>();
  readonly #digests = new SingleFlight<FetchedManifest>();
  readonly #spared: SparedTags;
  readonly #closing = new AbortController();

  constructor(options: {
    store: BlobStore;
    index: MetadataIndex;
    hot: HotManifests;
    links: Links;
    negative: NegativeAnswers;
    gate: StaleGate;
    clock: Clock;
    log: Logger;
    metrics: Metrics;
    audit: Audit;
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
    this.#metrics = options.metrics;
    this.#audit = options.audit;
    this.#isOffline = options.isOffline;
    this.#spared = new SparedTags(options.clock);
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

  /**
   * Asks the upstream what a tag points to, however fresh it is.
   *
   * @throws Refusal, RegistryError, UpstreamError
   */
  async refresh(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<{ digest: Digest; isChanged: boolean }> {
    if (this.#isOffline) throw offlineRefusal("manifest");
    const row = await this.#index.getTag(key, tag);
    const result = await this.#revalidate(upstream, key, tag, row);
    if (result.kind === "spared") {
      throw new RegistryError("TOOMANYREQUESTS", {
        detail:
          "the tag moved, and little of the upstream's pull budget is left",
      });
    }
    const { digest } =
      result.kind === "unchanged" ? result.row : result.manifest;
    if (digest === undefined) throw new RegistryError("MANIFEST_UNKNOWN");
    return { digest, isChanged: digest !== row?.digest };
  }

  /**
   * A hit whose row and bytes are both in memory, without a promise.
   *
   * @returns undefined where {@link get} must be asked
   */
  recall(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference,
  ): ManifestAnswer | undefined {
    const nowMs = this.#clock.nowMs();
    if (reference.kind === "digest") {
      const { digest } = reference;
      const row = this.#index.recallLinkedBlob(key, digest);
      const stored =
        row?.mediaType === undefined ? undefined : this.#hot.get(digest);
      if (stored === undefined) return undefined;
      this.#index.touchManifest(key, digest, nowMs);
      return {
        ...current({ ...stored, digest }, cacheStatus.hit()),
        ageMs: row === undefined ? undefined : nowMs - row.storedAtMs,
      };
    }
    const { tag } = reference;
    const row = this.#index.recallTag(key, tag);
    const stored = row && this.#hot.get(row.digest);
    if (row === undefined || stored === undefined) return undefined;
    const freshness = this.#judge(upstream, key, tag, row, nowMs);
    if (freshness.state !== "fresh") return undefined;
    this.#index.touchTag(key, tag, nowMs);
    return fresh({ ...stored, digest: row.digest }, row, freshness, nowMs);
  }

  /** Ends what runs behind answers that were given. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([this.#tags.drain(), this.#digests.drain()]);
  }

  #deadline(): AbortSignal {
    return AbortSignal.any([
      AbortSignal.timeout(ANSWER_DEADLINE_MS),
      this.#closing.signal,
    ]);
  }

  // --- by digest -------------------------------------------------------------------------------

  async #byDigest(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<ManifestAnswer> {
    const stored = await this.#readServable(upstream, key, digest);
    if (stored !== undefined) {
      const nowMs = this.#clock.nowMs();
      this.#index.touchManifest(key, digest, nowMs);
      return {
        ...current(stored.manifest, cacheStatus.hit()),
        ageMs: nowMs - stored.storedAtMs,
      };
    }
    if (this.#isOffline) throw offlineRefusal("manifest");
    this.#negative.assertNone(upstream, key, digest, "manifest");
    const isJoin = this.#digests.has(flightOf(key, digest));
    const manifest = await this.#fetch(upstream, key, digest, this.#deadline());
    return current(manifest, missStatus(manifest, isJoin));
  }

  /** A stored manifest that the repository may serve; storage and index that fail have none. */
  async #readServable(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<{ manifest: Manifest; storedAtMs: number } | undefined> {
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
    if (!isLinked && !(await this.#isProven(upstream, key, digest))) {
      return undefined;
    }
    const { sizeBytes, mediaType, storedAtMs } = row;
    const manifest = await this.#read(digest, sizeBytes, mediaType);
    return manifest && { manifest, storedAtMs };
  }

  /** @returns false where HEAD is not offered: then only the bytes prove anything */
  async #isProven(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<boolean> {
    this.#negative.assertNone(upstream, key, digest, "manifest");
    try {
      await this.#links.prove(upstream, key, digest, "manifest");
      return true;
    } catch (error) {
      if (isHeadUnknown(error)) return false;
      this.#negative.note(upstream, key, digest, error);
      throw error;
    }
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

  /** One GET by digest for all who ask at once, whether by digest or by tag. */
  #fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<FetchedManifest> {
    return this.#digests.run(flightOf(key, digest), () =>
      this.#fetchVerified(upstream, key, digest, signal),
    );
  }

  async #fetchVerified(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<FetchedManifest> {
    let fetched: UpstreamManifest;
    try {
      fetched = await upstream.client.getManifest(
        key.repository,
        { kind: "digest", digest },
        signal,
        ({ bytes }) => this.#isHashOf(digest, bytes),
      );
    } catch (error) {
      this.#negative.note(upstream, key, digest, error);
      throw error;
    }
    return this.#keep(key, digest, fetched);
  }

  #isHashOf(digest: Digest, bytes: Buffer): boolean {
    const isRight = digestOf(bytes, digestAlgorithm(digest)) === digest;
    if (!isRight) this.#metrics.digestMismatches.inc();
    return isRight;
  }

  /** Stores verified bytes. A storage that fails keeps nothing and spoils nothing. */
  async #keep(
    key: RepositoryKey,
    digest: Digest,
    fetched: UpstreamManifest,
  ): Promise<FetchedManifest> {
    const parsed = parseManifest(fetched.bytes, fetched.mediaType);
    if (!parsed.ok) {
      throw new RegistryError("MANIFEST_INVALID", { detail: parsed.detail });
    }
    const { mediaType } = parsed;
    const { bytes } = fetched;
    try {
      const sizeBytes = bytes.length;
      await this.#index.beginFill(key, { digest, sizeBytes, mediaType });
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
      return { bytes, mediaType, digest, isStored: false };
    }
    return { bytes, mediaType, digest, isStored: true };
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
    const freshness = this.#judge(upstream, key, tag, row, nowMs);
    this.#index.touchTag(key, tag, nowMs);
    if (freshness.state === "fresh") {
      return fresh(stored, row, freshness, nowMs);
    }
    const ageMs = Math.max(0, nowMs - row.verifiedAtMs);
    const stale = (status: CacheStatus): ManifestAnswer => ({
      ...stored,
      status,
      ageMs,
      isStale: true,
    });
    const revalidate = () => this.#revalidate(upstream, key, tag, row);
    const isComplete = () =>
      this.#index
        .isComplete(
          key,
          row.digest,
          // There a manifest of the repository is proof enough for its blobs; see Links.
          this.#links.areManifestsProof(upstream) ? "upstream" : "repository",
        )
        .catch(() => false);

    if (this.#isOffline) {
      if (freshness.ifError && (await isComplete())) {
        return stale(cacheStatus.staleHit());
      }
      throw offlineRefusal("manifest");
    }
    this.#negative.assertNotRefused(upstream, key, tag, "manifest");
    if (freshness.ifError && this.#spared.has(upstream, key, tag)) {
      return stale(cacheStatus.staleHit());
    }
    if (
      freshness.whileRevalidating &&
      // Of an upstream that is known to be down only what can be finished from here.
      (!upstream.client.isDown() || (await isComplete()))
    ) {
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
        return result.value.kind === "spared"
          ? stale(cacheStatus.staleHit())
          : answerRevalidated(result.value, stored);
      case "not-asked":
        return stale(cacheStatus.staleHit());
      case "too-slow":
        return stale(cacheStatus.staleAfterFailure(undefined));
      case "failed":
        return this.#afterFailure(upstream, result.error, {
          stale,
          isAllowed: freshness.ifError,
          isComplete: mayBeStale,
        });
      default:
        return result satisfies never;
    }
  }

  #judge(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    row: TagRow,
    nowMs: number,
  ): Freshness {
    return judgeFreshness(
      row.verifiedAtMs,
      nowMs,
      upstream.freshness.ttlMs(key.repository, tag),
      upstream.freshness,
    );
  }

  async #missingTag(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<ManifestAnswer> {
    if (this.#isOffline) throw offlineRefusal("manifest");
    this.#negative.assertNone(upstream, key, tag, "manifest");
    const isJoin = this.#tags.has(flightOf(key, tag));
    const found = await this.#revalidate(upstream, key, tag, undefined);
    return found.kind === "fetched"
      ? current(found.manifest, missStatus(found.manifest, isJoin))
      : // Joined with one that began while the manifest was still stored.
        this.#byDigest(upstream, key, found.row.digest);
  }

  #afterFailure(
    upstream: MirroredUpstream,
    error: unknown,
    offer: {
      readonly stale: (status: CacheStatus) => ManifestAnswer;
      readonly isAllowed: boolean;
      readonly isComplete: boolean;
    },
  ): ManifestAnswer {
    if (!(error instanceof UpstreamError)) throw error;
    const verdict = judgeUpstreamFailure(error, {
      wanted: "manifest",
      hasCredentials: upstream.client.hasCredentials,
    });
    const isOffered =
      offer.isAllowed &&
      (verdict.stale === "always" ||
        (verdict.stale === "when-complete" && offer.isComplete));
    if (!isOffered) throw error;
    return offer.stale(staleStatus(error));
  }

  /** One HEAD for all who ask at once, and the body by its digest where that is new. */
  #revalidate(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
  ): Promise<Revalidation> {
    return this.#tags.run(flightOf(key, tag), async () => {
      try {
        return await this.#resolve(upstream, key, tag, known, this.#deadline());
      } catch (error) {
        // Here and not where it is answered: it may have been answered stale long ago.
        this.#negative.note(upstream, key, tag, error);
        if (isNotFound(error)) {
          await this.#index.removeTag(key, tag).catch(() => {});
        }
        throw error;
      }
    });
  }

  /** @throws UpstreamError `not-found` only where the upstream has no such tag */
  async #resolve(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
    signal: AbortSignal,
  ): Promise<Revalidation> {
    const digest = await this.#headDigest(upstream, key, tag, signal);
    if (known?.digest === digest && known !== undefined) {
      return this.#confirm(key, tag, known);
    }
    const proven =
      digest === undefined ? undefined : await this.#readProven(key, digest);
    if (proven !== undefined) return this.#move(key, tag, known, proven);
    if (known !== undefined && this.#isSpared(upstream, known)) {
      this.#spared.add(key, tag, upstream.freshness.ttlMs(key.repository, tag));
      return { kind: "spared", row: known };
    }
    if (digest === undefined) {
      return this.#resolveByBody(upstream, key, tag, known, signal);
    }
    try {
      const fetched = await this.#fetch(upstream, key, digest, signal);
      return await this.#move(key, tag, known, fetched);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      // The tag moved since, and what it pointed to is gone.
      return this.#resolveByBody(upstream, key, tag, known, signal);
    }
  }

  /** Whether the manifest that a tag had may stand for the new one, so that a pull is saved. */
  #isSpared({ client, freshness }: MirroredUpstream, known: TagRow): boolean {
    const ageMs = this.#clock.nowMs() - known.verifiedAtMs;
    return ageMs <= freshness.staleIfErrorMs && client.isBudgetSpared();
  }

  /** A stored manifest that the upstream has just named for this repository: proof enough to link it. */
  async #readProven(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<FetchedManifest | undefined> {
    try {
      const row = await this.#index.getBlob(digest);
      if (row?.mediaType === undefined) return undefined;
      await this.#index.link(key, digest);
      const stored = await this.#read(digest, row.sizeBytes, row.mediaType);
      return stored && { ...stored, isStored: true };
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
      if (isHeadUnknown(error)) return undefined;
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
    const fetched = await upstream.client.getManifest(
      key.repository,
      { kind: "tag", tag },
      signal,
      (manifest) =>
        manifest.digestHeader === undefined ||
        isSchema1Manifest(manifest) ||
        this.#isHashOf(manifest.digestHeader, manifest.bytes),
    );
    const { bytes, digestHeader } = fetched;
    const parsed = parseManifest(bytes, fetched.mediaType);
    if (parsed.ok && parsed.kind === "schema1") {
      const { mediaType } = parsed;
      return {
        kind: "fetched",
        manifest: { bytes, mediaType, digest: digestHeader, isStored: false },
      };
    }
    const digest = digestHeader ?? digestOf(bytes, "sha256");
    if (known?.digest === digest) return this.#confirm(key, tag, known);
    return this.#move(key, tag, known, await this.#keep(key, digest, fetched));
  }

  async #move(
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
    manifest: FetchedManifest,
  ): Promise<Revalidation> {
    const { digest, isStored } = manifest;
    if (isStored && digest !== undefined) {
      await this.#point(key, tag, digest);
      if (known !== undefined) {
        this.#audit.record({
          event: "tag-moved",
          upstream: key.upstream,
          repository: key.repository,
          tag,
          from: known.digest,
          to: digest,
        });
      }
    }
    return { kind: "fetched", manifest };
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

/** A hit inside its life. */
function fresh(
  { bytes, mediaType, digest }: Manifest,
  { verifiedAtMs }: TagRow,
  { ttlMs }: Freshness & { readonly state: "fresh" },
  nowMs: number,
): ManifestAnswer {
  return {
    bytes,
    mediaType,
    digest,
    status: cacheStatus.hit(ttlMs),
    ageMs: Math.max(0, nowMs - verifiedAtMs),
    isStale: false,
  };
}

function current(
  { bytes, mediaType, digest }: Manifest,
  status: CacheStatus,
): ManifestAnswer {
  return {
    bytes,
    mediaType,
    digest,
    status,
    ageMs: undefined,
    isStale: false,
  };
}

function answerRevalidated(
  result: Exclude<Revalidation, { readonly kind: "spared" }>,
  stored: Manifest,
): ManifestAnswer {
  switch (result.kind) {
    case "unchanged":
      return current(stored, cacheStatus.revalidated(200));
    case "fetched":
      return current(
        result.manifest,
        result.manifest.isStored
          ? cacheStatus.replaced(200)
          : cacheStatus.notStored(200),
      );
    default:
      return result satisfies never;
  }
}

/** What is told of a manifest that the cache had not. */
function missStatus(
  { isStored }: FetchedManifest,
  isJoin: boolean,
): CacheStatus {
  if (isJoin) return cacheStatus.collapsed();
  return isStored ? cacheStatus.stored(200) : cacheStatus.notStored(200);
}

/** Whatever its header says of it. */
function isSchema1Manifest({ bytes, mediaType }: UpstreamManifest): boolean {
  const parsed = parseManifest(bytes, mediaType);
  return parsed.ok && parsed.kind === "schema1";
}

function isHeadUnknown(error: unknown): boolean {
  return (
    error instanceof UpstreamError &&
    (error.status === 405 || error.status === 501)
  );
}

function isNotFound(error: unknown): boolean {
  return error instanceof UpstreamError && error.kind === "not-found";
}

function flightOf(key: RepositoryKey, reference: Tag | Digest): string {
  return `${key.upstream} ${key.repository} ${reference}`;
}
