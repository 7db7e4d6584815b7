import type { BlobLinks } from "../../storage/blob-index.ts";
import type { ImageGraph } from "../../storage/graph-index.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import type { TagIndex, TagRow } from "../../storage/tag-index.ts";
import type { Digest } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import { parseManifest } from "../../oci/manifest.ts";
import {
  isReferrersTag,
  type Reference,
  REFERRERS_TAG_SUFFIXES,
  referrersTag,
  type RepositoryKey,
  type Tag,
} from "../../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { UpstreamError } from "../../wire/errors.ts";
import {
  judgeUpstreamFailure,
  offlineRefusal,
  staleStatus,
} from "../answers.ts";
import type { DigestManifests } from "./digest-manifests.ts";
import { type Freshness, judgeFreshness } from "../freshness.ts";
import { type GoneTags, isGone } from "./gone-tags.ts";
import type { Links } from "../links.ts";
import {
  current,
  fresh,
  isNotFound,
  type Manifest,
  type ManifestAnswer,
  missStatus,
} from "./manifest-answers.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";
import type { NegativeAnswers } from "../negative-answers.ts";
import type { StaleGate } from "../stale-gate.ts";
import type { StoredManifests } from "./stored-manifests.ts";
import {
  answerOfGate,
  type Revalidation,
  type TagRevalidation,
} from "./tag-revalidation.ts";

type ManifestsIndex = Pick<BlobLinks, "getLinkedBlob" | "recallLinkedBlob"> &
  Pick<ImageGraph, "isComplete"> &
  Pick<TagIndex, "getTag" | "recallTag" | "removeTag"> &
  Pick<UseIndex, "touchManifest" | "touchTag">;

/** Layers of the tag that holds the signatures of one image; more than any image has. */
const MAX_SIGNATURES = 256;

/** Manifests by tag and by digest: fresh, revalidated, stale or fetched. */
export class Manifests {
  readonly #stored: StoredManifests;
  readonly #digests: DigestManifests;
  readonly #revalidation: TagRevalidation;
  readonly #index: ManifestsIndex;
  readonly #links: Links;
  readonly #negative: NegativeAnswers;
  readonly #gone: GoneTags;
  readonly #gate: StaleGate;
  readonly #clock: Clock;
  readonly #isOffline: () => boolean;

  constructor(options: {
    readonly stored: StoredManifests;
    readonly digests: DigestManifests;
    readonly revalidation: TagRevalidation;
    readonly index: ManifestsIndex;
    readonly links: Links;
    readonly negative: NegativeAnswers;
    readonly gone: GoneTags;
    readonly gate: StaleGate;
    readonly clock: Clock;
    readonly isOffline: () => boolean;
  }) {
    this.#stored = options.stored;
    this.#digests = options.digests;
    this.#revalidation = options.revalidation;
    this.#index = options.index;
    this.#links = options.links;
    this.#negative = options.negative;
    this.#gone = options.gone;
    this.#gate = options.gate;
    this.#clock = options.clock;
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
      : this.#digests.get(upstream, key, reference.digest);
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
    if (this.#isOffline()) throw offlineRefusal("manifest");
    const row = await this.#index.getTag(key, tag);
    const result = await this.#revalidation.run(upstream, key, tag, row);
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
   * Asks the upstream again for the tags that clients name after a digest: signatures and lists of
   * referrers. One that is not cached is asked for by the next client.
   *
   * @throws RegistryError, UpstreamError
   */
  async refreshReferrersTags(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
  ): Promise<void> {
    for (const suffix of REFERRERS_TAG_SUFFIXES) {
      const tag = `${referrersTag(subject)}${suffix}` as Tag;
      this.#negative.delete(key, tag);
      const row = await this.#index.getTag(key, tag);
      if (row === undefined) continue;
      try {
        await this.#revalidation.run(upstream, key, tag, row);
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    }
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
      if (row?.mediaType === undefined) return undefined;
      const bytes = this.#stored.recall(key, digest);
      if (bytes === undefined) return undefined;
      const { mediaType, storedAtMs } = row;
      this.#index.touchManifest(key, digest, nowMs);
      return {
        ...current({ bytes, mediaType, digest }, cacheStatus.hit()),
        ageMs: nowMs - storedAtMs,
      };
    }
    const { tag } = reference;
    const row = this.#index.recallTag(key, tag);
    const bytes = row && this.#stored.recall(key, row.digest);
    if (row === undefined || bytes === undefined) return undefined;
    if (row.goneAtMs !== undefined) return undefined;
    const freshness = this.#judge(upstream, key, tag, row, nowMs);
    if (freshness.state !== "fresh") return undefined;
    this.#index.touchTag(key, tag, nowMs);
    const { mediaType, digest } = row;
    return fresh({ bytes, mediaType, digest }, row, freshness, nowMs);
  }

  /** Ends what runs behind answers that were given. */
  async close(): Promise<void> {
    await Promise.all([this.#digests.close(), this.#revalidation.drain()]);
    await this.#stored.settle();
  }

  async #byTag(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<ManifestAnswer> {
    const row = await this.#index.getTag(key, tag).catch(() => undefined);
    const stored =
      row === undefined
        ? undefined
        : await this.#stored.read(
            key,
            row.digest,
            row.sizeBytes,
            row.mediaType,
          );
    if (row === undefined || stored === undefined) {
      return this.#missingTag(upstream, key, tag);
    }
    const nowMs = this.#clock.nowMs();
    this.#index.touchTag(key, tag, nowMs);
    const ageMs = Math.max(0, nowMs - row.verifiedAtMs);
    const stale = (status: CacheStatus): ManifestAnswer => ({
      ...stored,
      status,
      ageMs,
      isStale: true,
    });
    const revalidate = () => this.#revalidation.run(upstream, key, tag, row);
    if (row.goneAtMs !== undefined) {
      return this.#byGoneTag(upstream, key, tag, {
        row,
        stored,
        stale,
        revalidate,
      });
    }
    const freshness = this.#judge(upstream, key, tag, row, nowMs);
    if (freshness.state === "fresh") {
      return fresh(stored, row, freshness, nowMs);
    }
    const isComplete = () =>
      (isReferrersTag(tag)
        ? this.#hasSignatures(key, stored)
        : this.#index.isComplete(
            key,
            row.digest,
            // There a manifest of the repository is proof enough for its blobs; see Links.
            this.#links.areManifestsProof(upstream) ? "upstream" : "repository",
          )
      ).catch(() => false);

    if (this.#isOffline()) {
      if (freshness.ifError && (await isComplete())) {
        return stale(cacheStatus.staleHit());
      }
      throw offlineRefusal("manifest");
    }
    this.#negative.assertNotRefused(upstream, key, tag, "manifest");
    if (freshness.ifError && this.#revalidation.isSpared(upstream, key, tag)) {
      return stale(cacheStatus.staleHit());
    }
    if (
      freshness.whileRevalidating &&
      // Of an upstream that is known to be down only what can be finished from here.
      (!upstream.client.isDown() || (await isComplete()))
    ) {
      this.#gate.runInBackground(revalidate());
      return stale(cacheStatus.staleHit());
    }
    const mayBeStale = freshness.ifError && (await isComplete());
    const result = await this.#gate.revalidate(
      upstream,
      revalidate,
      mayBeStale,
    );
    if (result.kind !== "failed") {
      return answerOfGate(result, stored, stale);
    }
    if (
      isGone(upstream, result.error) &&
      (await this.#gone.isKept(upstream, key, tag))
    ) {
      return stale(staleStatus(result.error));
    }
    return this.#afterFailure(upstream, result.error, {
      stale,
      isAllowed: freshness.ifError,
      isComplete: mayBeStale,
    });
  }

  /**
   * A tag that is gone upstream, as far as it was heard: asked for again after `notFoundTtl`, and
   * served as long as it may be, whatever of it is stored, since no registry has the rest.
   */
  async #byGoneTag(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: {
      readonly row: TagRow;
      readonly stored: Manifest;
      readonly stale: (status: CacheStatus) => ManifestAnswer;
      readonly revalidate: () => Promise<Revalidation>;
    },
  ): Promise<ManifestAnswer> {
    const { row, stored, stale, revalidate } = known;
    if (!this.#gone.mayServe(upstream, row)) {
      await this.#index.removeTag(key, tag).catch(() => {});
      return this.#missingTag(upstream, key, tag);
    }
    if (this.#isOffline() || this.#negative.has(upstream, key, tag)) {
      return stale(cacheStatus.staleHit());
    }
    const result = await this.#gate.revalidate(upstream, revalidate, true);
    if (result.kind !== "failed") {
      return answerOfGate(result, stored, stale);
    }
    return stale(
      result.error instanceof UpstreamError
        ? staleStatus(result.error)
        : cacheStatus.staleAfterFailure(undefined),
    );
  }

  /**
   * Whether all that clients fetch of signatures is there: the layers, and never the config. A list
   * of referrers has none.
   */
  async #hasSignatures(
    key: RepositoryKey,
    { bytes, mediaType }: Manifest,
  ): Promise<boolean> {
    const parsed = parseManifest(bytes, mediaType);
    if (!parsed.ok || parsed.children.length > MAX_SIGNATURES) return false;
    for (const { digest, role } of parsed.children) {
      if (role !== "blob" || digest === parsed.config) continue;
      if ((await this.#index.getLinkedBlob(key, digest)) === undefined) {
        return false;
      }
    }
    return true;
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
    if (this.#isOffline()) throw offlineRefusal("manifest");
    this.#negative.assertNone(upstream, key, tag, "manifest");
    const isJoin = this.#revalidation.isRunning(key, tag);
    const found = await this.#revalidation.run(upstream, key, tag, undefined);
    return found.kind === "fetched"
      ? current(found.manifest, missStatus(found.manifest, isJoin))
      : // Joined with one that began while the manifest was still stored.
        this.#digests.get(upstream, key, found.row.digest);
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
}
