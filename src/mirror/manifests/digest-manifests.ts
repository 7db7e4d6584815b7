import type { BlobLinks, BlobRow } from "../../storage/blob-index.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import { type Digest, digestAlgorithm, digestOf } from "../../oci/digest.ts";
import { cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { UpstreamManifest } from "../../upstream/client.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../../wire/deadline.ts";
import { offlineRefusal } from "../answers.ts";
import { isHeadDoubtful } from "./failed-heads.ts";
import type { Links } from "../links.ts";
import {
  current,
  type FetchedManifest,
  flightOf,
  isHeadUnknown,
  isNotFound,
  type Manifest,
  type ManifestAnswer,
  missStatus,
} from "./manifest-answers.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";
import type { NegativeAnswers } from "../negative-answers.ts";
import { SingleFlight } from "../single-flight.ts";
import type { StoredManifests } from "./stored-manifests.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

type DigestIndex = Pick<BlobLinks, "getLinkedBlob" | "getUpstreamBlob"> &
  Pick<UseIndex, "touchManifest">;

interface DigestParts {
  readonly stored: StoredManifests;
  readonly index: DigestIndex;
  readonly links: Links;
  readonly negative: NegativeAnswers;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly isOffline: () => boolean;
}

/** Answers requests for manifests by digest: stored, proven for the repository, or fetched. */
export class DigestManifests {
  readonly #parts: DigestParts;
  readonly #fetches = new SingleFlight<FetchedManifest>();
  readonly #closing = new AbortController();

  constructor(parts: DigestParts) {
    this.#parts = parts;
  }

  /** @throws Refusal, RegistryError, UpstreamError */
  async get(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<ManifestAnswer> {
    const { index, negative, clock, isOffline } = this.#parts;
    const stored = await this.#readServable(upstream, key, digest);
    if (stored !== undefined) {
      const nowMs = clock.nowMs();
      index.touchManifest(key, digest, nowMs);
      return {
        ...current(stored.manifest, cacheStatus.hit()),
        ageMs: nowMs - stored.storedAtMs,
      };
    }
    if (isOffline()) throw offlineRefusal("manifest");
    negative.assertNone(upstream, key, digest, "manifest");
    const isJoin = this.#fetches.has(flightOf(key, digest));
    const manifest = await this.bounded((signal) =>
      this.fetch(upstream, key, digest, signal),
    );
    return current(manifest, missStatus(manifest, isJoin));
  }

  /**
   * Fetches a manifest that no client has requested: as {@link get}, but does not count as a use.
   *
   * @throws Refusal, RegistryError, UpstreamError
   */
  async prefetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<FetchedManifest> {
    const stored = await this.#readServable(upstream, key, digest);
    if (stored !== undefined) return { ...stored.manifest, isStored: true };
    this.#parts.negative.assertNone(upstream, key, digest, "manifest");
    return this.bounded((signal) => this.fetch(upstream, key, digest, signal));
  }

  /** Sends one GET by digest for all concurrent requests, whether by digest or by tag. */
  fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<FetchedManifest> {
    return this.#fetches.run(flightOf(key, digest), () =>
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
        ({ bytes }) => this.isHashOf(digest, bytes),
      );
    } catch (error) {
      this.#parts.negative.note(upstream, key, digest, error);
      throw error;
    }
    return this.#parts.stored.keep(key, digest, fetched);
  }

  /** Whether an upstream's bytes match the digest; a mismatch is counted. */
  isHashOf(digest: Digest, bytes: Buffer): boolean {
    const isRight = digestOf(bytes, digestAlgorithm(digest)) === digest;
    if (!isRight) this.#parts.metrics.digestMismatches.inc();
    return isRight;
  }

  /** Bounds an upstream request by {@link ANSWER_DEADLINE_MS} and by the end of the mirror. */
  bounded<T>(request: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return withDeadline(ANSWER_DEADLINE_MS, request, this.#closing.signal);
  }

  /** Ends the fetches that run in the background. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#fetches.drain();
  }

  /** Returns a stored manifest that the repository may serve; undefined also if storage or index fail. */
  async #readServable(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<{ manifest: Manifest; storedAtMs: number } | undefined> {
    const { index, stored } = this.#parts;
    let isLinked: boolean;
    let row;
    try {
      row = await index.getLinkedBlob(key, digest);
      isLinked = row !== undefined;
      // Content that only another upstream has linked must be fetched from this one.
      row ??= await index.getUpstreamBlob(key.upstream, digest);
    } catch {
      return undefined;
    }
    if (row?.mediaType === undefined) return undefined;
    if (!isLinked && !(await this.#isProven(upstream, key, row))) {
      return undefined;
    }
    const { sizeBytes, mediaType, storedAtMs } = row;
    const manifest = await stored.read(key, digest, sizeBytes, mediaType);
    return manifest && { manifest, storedAtMs };
  }

  /** @returns false if the registry does not support HEAD or it fails: then only the bytes are proof */
  async #isProven(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    row: BlobRow,
  ): Promise<boolean> {
    const { digest } = row;
    const { links, negative } = this.#parts;
    negative.assertNone(upstream, key, digest, "manifest");
    try {
      await links.prove(upstream, key, digest, "manifest", row);
      return true;
    } catch (error) {
      if (isHeadUnknown(error)) return false;
      if (isHeadDoubtful(error) && !isNotFound(error)) return false;
      negative.note(upstream, key, digest, error);
      throw error;
    }
  }
}
