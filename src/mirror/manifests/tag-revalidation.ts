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

/** What asking the upstream for a tag brought. */
export type Revalidation =
  | { readonly kind: "unchanged"; readonly row: TagRow }
  | { readonly kind: "fetched"; readonly manifest: FetchedManifest }
  /** The tag moved, and the upstream's budget is kept for what is not cached at all. */
  | { readonly kind: "spared"; readonly row: TagRow };

/** What a tag points to, asked of its upstream. */
export class TagRevalidation {
  readonly #digests: DigestManifests;
  readonly #stored: StoredManifests;
  readonly #index: RevalidationIndex;
  readonly #negative: NegativeAnswers;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #audit: Audit;
  readonly #flights = new SingleFlight<Revalidation>();
  readonly #spared: SparedTags;
  readonly #gone: GoneTags;
  readonly #failedHeads: FailedHeads;

  constructor(options: {
    readonly digests: DigestManifests;
    readonly stored: StoredManifests;
    readonly index: RevalidationIndex;
    readonly negative: NegativeAnswers;
    readonly gone: GoneTags;
    readonly clock: Clock;
    readonly log: Logger;
    readonly audit: Audit;
  }) {
    this.#digests = options.digests;
    this.#stored = options.stored;
    this.#index = options.index;
    this.#negative = options.negative;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#audit = options.audit;
    this.#gone = options.gone;
    this.#spared = new SparedTags(options.clock);
    this.#failedHeads = new FailedHeads(options.clock);
  }

  /** Whether somebody asks for the tag now. */
  isRunning(key: RepositoryKey, tag: Tag): boolean {
    return this.#flights.has(flightOf(key, tag));
  }

  /** The tag moved a moment ago, and what it pointed to stands for the new one. */
  isSpared(upstream: MirroredUpstream, key: RepositoryKey, tag: Tag): boolean {
    return this.#spared.has(upstream, key, tag);
  }

  /** Resolves when nobody asks any more. */
  async drain(): Promise<void> {
    await this.#flights.drain();
  }

  /**
   * Asks once for all requests that wait for the same tag: one GET by tag if nothing is cached;
   * otherwise one HEAD, and the body by its digest if that is new.
   */
  run(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    tag: Tag,
    known: TagRow | undefined,
  ): Promise<Revalidation> {
    return this.#flights.run(flightOf(key, tag), async () => {
      try {
        return await this.#digests.bounded((signal) =>
          this.#resolve(upstream, key, tag, known, signal),
        );
      } catch (error) {
        // Here and not where it is answered: it may have been answered stale long ago.
        this.#negative.note(upstream, key, tag, error);
        await this.#gone.note(upstream, key, tag, error);
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
      const fetched = await this.#digests.fetch(upstream, key, digest, signal);
      return await this.#move(key, tag, known, fetched);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      // The tag moved since, and what it pointed to is gone.
      return this.#resolveByBody(upstream, key, tag, known, signal);
    }
  }

  /**
   * Sends a GET where only the HEAD may have failed.
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
    // HEADs that failed like that before may have made the tag's HEAD rest.
    const mayGet =
      isHeadDoubtful(error) ||
      (result !== undefined && isResting(upstream, error));
    if (!mayGet) throw error;
    // The GET before confirmed or moved the row a moment ago.
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
        // Nothing was dialled for it.
        throw isGone(upstream, error) ? second : error;
      }
      this.#failedHeads.note(upstream, key, tag, {
        kind: "failed",
        error: second,
      });
      throw second;
    }
  }

  /** Whether the manifest that a tag had may stand for the new one, so that a pull is saved. */
  #mayBeSpared(
    { client, freshness }: MirroredUpstream,
    known: TagRow,
  ): boolean {
    const ageMs = this.#clock.nowMs() - known.verifiedAtMs;
    return ageMs <= freshness.staleIfErrorMs && client.isBudgetSpared();
  }

  /**
   * A manifest that any repository of the upstream has linked and that the upstream has just named
   * for this one: proof enough to link it. What only another upstream has linked is fetched, or a
   * tag could be pointed to whatever that one has.
   */
  async #readProven(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<FetchedManifest | undefined> {
    try {
      const row = await this.#index.getUpstreamBlob(key.upstream, digest);
      if (row?.mediaType === undefined) return undefined;
      await this.#index.link(key, digest, row.mediaType);
      const stored = await this.#stored.read(
        key,
        digest,
        row.sizeBytes,
        row.mediaType,
      );
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
        this.#digests.isHashOf(manifest.digestHeader, manifest.bytes),
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
      await this.#stored.keep(key, digest, fetched),
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

/** The answer of a tag whose upstream was asked, or need not be waited for. */
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

/** @param stored what was there before */
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

/** Whatever its header says of it. */
function isSchema1Manifest({ bytes, mediaType }: UpstreamManifest): boolean {
  const parsed = parseManifest(bytes, mediaType);
  return parsed.ok && parsed.kind === "schema1";
}
