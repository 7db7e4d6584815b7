import type { BlobLinks } from "../../storage/blob-index.ts";
import type { TagIndex, TagRow } from "../../storage/tag-index.ts";
import { type Digest, digestOf } from "../../oci/digest.ts";
import { parseManifest } from "../../oci/manifest.ts";
import { isSchema1 } from "../../oci/media-type.ts";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import type { Audit } from "../../telemetry/audit.ts";
import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { UpstreamManifest } from "../../upstream/client.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { DigestManifests } from "./digest-manifests.ts";
import { FailedHeads, isHeadDoubtful, isResting } from "./failed-heads.ts";
import { type GoneTags, isGone } from "./gone-tags.ts";
import {
  current,
  type FetchedManifest,
  flightOf,
  isHeadUnknown,
  isNotFound,
  type Manifest,
  type ManifestAnswer,
} from "./manifest-answers.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";
import type { NegativeAnswers } from "../negative-answers.ts";
import { SingleFlight } from "../single-flight.ts";
import type { GateResult } from "../stale-gate.ts";
import { SparedTags } from "./spared-tags.ts";
import type { StoredManifests } from "./stored-manifests.ts";

type RevalidationIndex = Pick<BlobLinks, "getUpstreamBlob" | "link"> &
  Pick<TagIndex, "putTag">;

/** The result of asking the upstream for a tag. */
export type Revalidation =
  | { readonly kind: "unchanged"; readonly row: TagRow }
  | { readonly kind: "fetched"; readonly manifest: FetchedManifest }
  /** The tag moved, and the rest of the upstream's pull quota is reserved for images that are not cached. */
  | { readonly kind: "spared"; readonly row: TagRow };

interface RevalidationParts {
  readonly digests: DigestManifests;
  readonly stored: StoredManifests;
  readonly index: RevalidationIndex;
  readonly negative: NegativeAnswers;
  readonly gone: GoneTags;
  readonly clock: Clock;
  readonly log: Logger;
  readonly audit: Audit;
}

/** Asks upstreams what tags point to, and updates the rows of the tags. */
export class TagRevalidation {
  readonly #parts: RevalidationParts;
  readonly #flights = new SingleFlight<Revalidation>();
  readonly #spared: SparedTags;
  readonly #failedHeads: FailedHeads;

  constructor(parts: RevalidationParts) {
    this.#parts = parts;
    this.#spared = new SparedTags(parts.clock);
    this.#failedHeads = new FailedHeads(parts.clock);
  }

  /** Whether the upstream is being asked for the tag. */
  isRunning(key: RepositoryKey, tag: Tag): boolean {
    return this.#flights.has(flightOf(key, tag));
  }

  /** Whether the tag moved a moment ago, and its former manifest is served to save pull quota. */
  isSpared(upstream: MirroredUpstream, key: RepositoryKey, tag: Tag): boolean {
    return this.#spared.has(upstream, key, tag);
  }

  /** Resolves when the running revalidations have ended. */
  async drain(): Promise<void> {
    await this.#flights.drain();
  }

  /**
   * Asks the upstream once for all concurrent requests for the same tag: one GET by tag if nothing is
   * cached; otherwise one HEAD, followed by a GET by digest if the digest is new.
   */
  run(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
  ): Promise<Revalidation> {
    return this.#flights.run(flightOf(key, tag), async () => {
      try {
        return await this.#parts.digests.bounded((signal) =>
          this.#resolve(upstream, key, tag, known, signal),
        );
      } catch (error) {
        // Noted here and not by the request, which may have received a stale answer long before.
        this.#parts.negative.note(upstream, key, tag, error);
        await this.#parts.gone.note(upstream, key, tag, error);
        throw error;
      }
    });
  }

  /** @throws UpstreamError `not-found` only if the upstream has no such tag */
  async #resolve(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
    signal: AbortSignal,
  ): Promise<Revalidation> {
    if (known === undefined) {
      return this.#resolveByBody(upstream, key, tag, undefined, signal);
    }
    let digest: Digest | undefined;
    try {
      digest = await this.#headDigest(upstream, key, tag, signal);
    } catch (error) {
      return this.#afterFailedHead(error, upstream, key, tag, known, signal);
    }
    if (known.digest === digest) return this.#confirm(key, tag, known);
    const proven =
      digest === undefined ? undefined : await this.#readProven(key, digest);
    if (proven !== undefined) return this.#move(key, tag, known, proven);
    if (this.#mayBeSpared(upstream, known)) {
      this.#spared.add(key, tag, upstream.freshness.ttlMs(key.repository, tag));
      return { kind: "spared", row: known };
    }
    if (digest === undefined) {
      return this.#resolveByBody(upstream, key, tag, known, signal);
    }
    try {
      const fetched = await this.#parts.digests.fetch(
        upstream,
        key,
        digest,
        signal,
      );
      return await this.#move(key, tag, known, fetched);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      // The tag moved after the HEAD, and the manifest that it pointed to is gone.
      return this.#resolveByBody(upstream, key, tag, known, signal);
    }
  }

  /**
   * Sends a GET if the failure may be one of HEAD requests only.
   *
   * @throws the error of the HEAD if no GET may be sent now, else that of the GET
   */
  async #afterFailedHead(
    error: unknown,
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow,
    signal: AbortSignal,
  ): Promise<Revalidation> {
    const result = this.#failedHeads.get(key, tag);
    // Earlier HEADs that failed in this way may have suspended the HEADs of the tag.
    const mayGet =
      isHeadDoubtful(error) ||
      (result !== undefined && isResting(upstream, error));
    if (!mayGet) throw error;
    // The previous GET confirmed or moved the row a moment ago.
    if (result?.kind === "worked") return { kind: "unchanged", row: known };
    // Only a GET shows that the tag is gone.
    if (result?.kind === "failed") {
      throw isGone(upstream, error) ? result.error : error;
    }
    if (upstream.client.isBudgetSpared()) throw error;
    try {
      const found = await this.#resolveByBody(
        upstream,
        key,
        tag,
        known,
        signal,
      );
      this.#failedHeads.note(upstream, key, tag, { kind: "worked" });
      return found;
    } catch (second) {
      if (second instanceof UpstreamError && second.isLocal) {
        // No request was sent for it.
        throw isGone(upstream, error) ? second : error;
      }
      this.#failedHeads.note(upstream, key, tag, {
        kind: "failed",
        error: second,
      });
      throw second;
    }
  }

  /** Whether a tag's former manifest may be served in place of the new one, to save pull quota. */
  #mayBeSpared(
    { client, freshness }: MirroredUpstream,
    known: TagRow,
  ): boolean {
    const ageMs = this.#parts.clock.nowMs() - known.verifiedAtMs;
    return ageMs <= freshness.staleIfErrorMs && client.isBudgetSpared();
  }

  /**
   * Returns a stored manifest that a repository of the upstream has linked and that the upstream has
   * just named for this repository, which proves that it may be linked here too. A manifest that only
   * another upstream has linked is fetched: otherwise an upstream could point a tag to any content of
   * another one.
   */
  async #readProven(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<FetchedManifest | undefined> {
    const { index, stored } = this.#parts;
    try {
      const row = await index.getUpstreamBlob(key.upstream, digest);
      if (row?.mediaType === undefined) return undefined;
      const { sizeBytes, mediaType } = row;
      await index.link(key, digest, mediaType);
      const manifest = await stored.read(key, digest, sizeBytes, mediaType);
      return manifest && { ...manifest, isStored: true };
    } catch {
      return undefined;
    }
  }

  /** @returns undefined if the HEAD does not report the digest, so that the body is needed */
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
        this.#parts.digests.isHashOf(manifest.digestHeader, manifest.bytes),
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
    return this.#move(
      key,
      tag,
      known,
      await this.#parts.stored.keep(key, digest, fetched),
    );
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
        this.#parts.audit.record({
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

  /** Writes the row of a tag. Called only with a digest whose bytes were verified. */
  async #point(key: RepositoryKey, tag: Tag, digest: Digest): Promise<void> {
    const { negative, index, clock, log } = this.#parts;
    negative.delete(key, tag);
    try {
      await index.putTag(key, tag, digest, clock.nowMs());
    } catch (error) {
      log.warn(
        { err: error, upstream: key.upstream, digest },
        "could not store the row of a tag",
      );
    }
  }
}

/** Builds the answer of a tag after a revalidation, or if the request does not wait for one. */
export function answerOfGate(
  result: Exclude<GateResult<Revalidation>, { readonly kind: "failed" }>,
  stored: Manifest,
  stale: (status: CacheStatus) => ManifestAnswer,
): ManifestAnswer {
  switch (result.kind) {
    case "done":
      return result.value.kind === "spared"
        ? stale(cacheStatus.staleHit())
        : answerRevalidated(result.value, stored);
    case "not-asked":
      return stale(cacheStatus.staleHit());
    case "too-slow":
      return stale(cacheStatus.staleAfterFailure(undefined));
    default:
      return result satisfies never;
  }
}

/** @param stored the manifest that was stored before */
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

/** Judges by the bytes, whatever the header says. */
function isSchema1Manifest({ bytes, mediaType }: UpstreamManifest): boolean {
  const parsed = parseManifest(bytes, mediaType);
  return parsed.ok && parsed.kind === "schema1";
}
