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

interface ManifestsParts {
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
}

/** A request for a tag whose row and manifest are stored. */
interface StoredTag {
  readonly upstream: MirroredUpstream;
  readonly key: RepositoryKey;
  readonly tag: Tag;
  readonly row: TagRow;
  readonly manifest: Manifest;
  readonly nowMs: number;
}

/** Answers requests for manifests by tag and by digest: fresh, revalidated, stale or fetched. */
export class Manifests {
  readonly #parts: ManifestsParts;

  constructor(parts: ManifestsParts) {
    this.#parts = parts;
  }

  /** @throws Refusal, RegistryError, UpstreamError */
  get(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference,
  ): Promise<ManifestAnswer> {
    return reference.kind === "tag"
      ? this.#byTag(upstream, key, reference.tag)
      : this.#parts.digests.get(upstream, key, reference.digest);
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
    const { index, revalidation, isOffline } = this.#parts;
    if (isOffline()) throw offlineRefusal("manifest");
    const row = await index.getTag(key, tag);
    const result = await revalidation.run(upstream, key, tag, row);
    if (result.kind === "spared") {
      throw new RegistryError("TOOMANYREQUESTS", {
        detail:
          "the tag moved, and the rest of the upstream's pull quota is reserved for images that are not cached",
      });
    }
    const { digest } =
      result.kind === "unchanged" ? result.row : result.manifest;
    if (digest === undefined) throw new RegistryError("MANIFEST_UNKNOWN");
    return { digest, isChanged: digest !== row?.digest };
  }

  /**
   * Asks the upstream again for the tags whose names clients derive from a digest: signatures and
   * lists of referrers. One that is not cached is fetched when a client requests it.
   *
   * @throws RegistryError, UpstreamError
   */
  async refreshReferrersTags(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
  ): Promise<void> {
    const { index, revalidation, negative } = this.#parts;
    for (const suffix of REFERRERS_TAG_SUFFIXES) {
      const tag = `${referrersTag(subject)}${suffix}` as Tag;
      negative.delete(key, tag);
      const row = await index.getTag(key, tag);
      if (row === undefined) continue;
      try {
        await revalidation.run(upstream, key, tag, row);
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    }
  }

  /**
   * Returns a hit whose row and bytes are both in memory, without a promise.
   *
   * @returns undefined if {@link get} must be called
   */
  recall(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference,
  ): ManifestAnswer | undefined {
    const { index, stored, clock } = this.#parts;
    const nowMs = clock.nowMs();
    if (reference.kind === "digest") {
      const { digest } = reference;
      const row = index.recallLinkedBlob(key, digest);
      if (row?.mediaType === undefined) return undefined;
      const bytes = stored.recall(key, digest);
      if (bytes === undefined) return undefined;
      const { mediaType, storedAtMs } = row;
      index.touchManifest(key, digest, nowMs);
      return {
        ...current({ bytes, mediaType, digest }, cacheStatus.hit()),
        ageMs: nowMs - storedAtMs,
      };
    }
    const { tag } = reference;
    const row = index.recallTag(key, tag);
    const bytes = row && stored.recall(key, row.digest);
    if (row === undefined || bytes === undefined) return undefined;
    if (row.goneAtMs !== undefined) return undefined;
    const freshness = judgeTag(upstream, key, tag, row, nowMs);
    if (freshness.state !== "fresh") return undefined;
    index.touchTag(key, tag, nowMs);
    const { mediaType, digest } = row;
    return fresh({ bytes, mediaType, digest }, row, freshness, nowMs);
  }

  /** Ends the work that runs in the background. */
  async close(): Promise<void> {
    const { digests, revalidation, stored } = this.#parts;
    await Promise.all([digests.close(), revalidation.drain()]);
    await stored.settle();
  }

  async #byTag(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<ManifestAnswer> {
    const { index, stored, clock } = this.#parts;
    const row = await index.getTag(key, tag).catch(() => undefined);
    const manifest =
      row && (await stored.read(key, row.digest, row.sizeBytes, row.mediaType));
    if (row === undefined || manifest === undefined) {
      return this.#missingTag(upstream, key, tag);
    }
    const nowMs = clock.nowMs();
    index.touchTag(key, tag, nowMs);
    if (row.goneAtMs !== undefined) {
      return this.#byGoneTag({ upstream, key, tag, row, manifest, nowMs });
    }
    const freshness = judgeTag(upstream, key, tag, row, nowMs);
    return freshness.state === "fresh"
      ? fresh(manifest, row, freshness, nowMs)
      : this.#byStaleTag(
          { upstream, key, tag, row, manifest, nowMs },
          freshness,
        );
  }

  async #byStaleTag(
    target: StoredTag,
    freshness: Freshness & { readonly state: "stale" },
  ): Promise<ManifestAnswer> {
    const { upstream, key, tag } = target;
    const { isOffline, negative, revalidation, gate, gone } = this.#parts;
    if (isOffline()) {
      if (freshness.ifError && (await this.#isComplete(target))) {
        return staleAnswer(target, cacheStatus.staleHit());
      }
      throw offlineRefusal("manifest");
    }
    negative.assertNotRefused(upstream, key, tag, "manifest");
    if (freshness.ifError && revalidation.isSpared(upstream, key, tag)) {
      return staleAnswer(target, cacheStatus.staleHit());
    }
    if (
      freshness.whileRevalidating &&
      // While the upstream is known to be down, only an image that is complete in the cache.
      (!upstream.client.isDown() || (await this.#isComplete(target)))
    ) {
      gate.runInBackground(this.#revalidate(target));
      return staleAnswer(target, cacheStatus.staleHit());
    }
    const mayBeStale = freshness.ifError && (await this.#isComplete(target));
    const result = await gate.revalidate(
      upstream,
      () => this.#revalidate(target),
      mayBeStale,
    );
    if (result.kind !== "failed") return this.#answerOfGate(target, result);
    const { error } = result;
    if (isGone(upstream, error) && (await gone.isKept(upstream, key, tag))) {
      return staleAnswer(target, staleStatus(error));
    }
    return this.#afterFailure(target, error, {
      isAllowed: freshness.ifError,
      isComplete: mayBeStale,
    });
  }

  /**
   * Answers a tag that the upstream last reported as gone. It is revalidated after `notFoundTtl`, and
   * served while that is allowed, even if blobs of it are missing, since no registry has them.
   */
  async #byGoneTag(target: StoredTag): Promise<ManifestAnswer> {
    const { upstream, key, tag, row } = target;
    const { index, isOffline, negative, gate, gone } = this.#parts;
    if (!gone.mayServe(upstream, row)) {
      await index.removeTag(key, tag).catch(() => {});
      return this.#missingTag(upstream, key, tag);
    }
    if (isOffline() || negative.has(upstream, key, tag)) {
      return staleAnswer(target, cacheStatus.staleHit());
    }
    const result = await gate.revalidate(
      upstream,
      () => this.#revalidate(target),
      true,
    );
    if (result.kind !== "failed") return this.#answerOfGate(target, result);
    return staleAnswer(
      target,
      result.error instanceof UpstreamError
        ? staleStatus(result.error)
        : cacheStatus.staleAfterFailure(undefined),
    );
  }

  #revalidate({ upstream, key, tag, row }: StoredTag): Promise<Revalidation> {
    return this.#parts.revalidation.run(upstream, key, tag, row);
  }

  #answerOfGate(
    target: StoredTag,
    result: Parameters<typeof answerOfGate>[0],
  ): ManifestAnswer {
    return answerOfGate(result, target.manifest, (status) =>
      staleAnswer(target, status),
    );
  }

  /** Whether a pull of the tag can be completed from the cache. An index that fails reports no. */
  async #isComplete(target: StoredTag): Promise<boolean> {
    const { upstream, key, tag, row, manifest } = target;
    const { index, links } = this.#parts;
    try {
      if (isReferrersTag(tag)) return await this.#hasSignatures(key, manifest);
      // If a manifest of the repository proves its blobs, those of the whole upstream count; see Links.
      const scope = links.areManifestsProof(upstream)
        ? "upstream"
        : "repository";
      return await index.isComplete(key, row.digest, scope);
    } catch {
      return false;
    }
  }

  /**
   * Whether everything that clients fetch of signatures is stored: the layers, but not the config. A
   * list of referrers has no layers.
   */
  async #hasSignatures(
    key: RepositoryKey,
    { bytes, mediaType }: Manifest,
  ): Promise<boolean> {
    const parsed = parseManifest(bytes, mediaType);
    if (!parsed.ok || parsed.children.length > MAX_SIGNATURES) return false;
    for (const { digest, role } of parsed.children) {
      if (role !== "blob" || digest === parsed.config) continue;
      const row = await this.#parts.index.getLinkedBlob(key, digest);
      if (row === undefined) return false;
    }
    return true;
  }

  async #missingTag(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
  ): Promise<ManifestAnswer> {
    const { isOffline, negative, revalidation, digests } = this.#parts;
    if (isOffline()) throw offlineRefusal("manifest");
    negative.assertNone(upstream, key, tag, "manifest");
    const isJoin = revalidation.isRunning(key, tag);
    const found = await revalidation.run(upstream, key, tag, undefined);
    return found.kind === "fetched"
      ? current(found.manifest, missStatus(found.manifest, isJoin))
      : // It joined a revalidation that began while the manifest was still stored.
        digests.get(upstream, key, found.row.digest);
  }

  #afterFailure(
    target: StoredTag,
    error: unknown,
    offer: { readonly isAllowed: boolean; readonly isComplete: boolean },
  ): ManifestAnswer {
    if (!(error instanceof UpstreamError)) throw error;
    const verdict = judgeUpstreamFailure(error, {
      wanted: "manifest",
      hasCredentials: target.upstream.client.hasCredentials,
    });
    const isOffered =
      offer.isAllowed &&
      (verdict.stale === "always" ||
        (verdict.stale === "when-complete" && offer.isComplete));
    if (!isOffered) throw error;
    return staleAnswer(target, staleStatus(error));
  }
}

function judgeTag(
  { freshness }: MirroredUpstream,
  key: RepositoryKey,
  tag: Tag,
  row: TagRow,
  nowMs: number,
): Freshness {
  if (row.verifiedAtMs === 0) {
    // Imported: stale from the start, and as old as the import when its upstream is out of reach.
    const ageMs = nowMs - confirmedAtMs(row);
    return {
      state: "stale",
      whileRevalidating: false,
      ifError: ageMs <= freshness.staleIfErrorMs,
    };
  }
  const ttlMs = freshness.ttlMs(key.repository, tag);
  return judgeFreshness(row.verifiedAtMs, nowMs, ttlMs, freshness);
}

/** Returns when the tag was last confirmed, by its upstream or by the operator that imported it. */
function confirmedAtMs({ verifiedAtMs, fetchedAtMs }: TagRow): number {
  return verifiedAtMs === 0 ? fetchedAtMs : verifiedAtMs;
}

function staleAnswer(
  { manifest, row, nowMs }: StoredTag,
  status: CacheStatus,
): ManifestAnswer {
  const ageMs = Math.max(0, nowMs - confirmedAtMs(row));
  return { ...manifest, status, ageMs, isStale: true };
}
