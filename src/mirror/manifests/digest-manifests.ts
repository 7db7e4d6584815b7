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

/** Manifests by digest: stored, proven for the repository, or fetched. */
export class DigestManifests {
  readonly #stored: StoredManifests;
  readonly #index: DigestIndex;
  readonly #links: Links;
  readonly #negative: NegativeAnswers;
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #isOffline: () => boolean;
  readonly #fetches = new SingleFlight<FetchedManifest>();
  readonly #closing = new AbortController();

  constructor(options: {
    readonly stored: StoredManifests;
    readonly index: DigestIndex;
    readonly links: Links;
    readonly negative: NegativeAnswers;
    readonly clock: Clock;
    readonly metrics: Metrics;
    readonly isOffline: () => boolean;
  }) {
    this.#stored = options.stored;
    this.#index = options.index;
    this.#links = options.links;
    this.#negative = options.negative;
    this.#clock = options.clock;
    this.#metrics = options.metrics;
    this.#isOffline = options.isOffline;
  }

  /** @throws Refusal, RegistryError, UpstreamError */
  async get(
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
    if (this.#isOffline()) throw offlineRefusal("manifest");
    this.#negative.assertNone(upstream, key, digest, "manifest");
    const isJoin = this.#fetches.has(flightOf(key, digest));
    const manifest = await this.bounded((signal) =>
      this.fetch(upstream, key, digest, signal),
    );
    return current(manifest, missStatus(manifest, isJoin));
  }

  /**
   * A manifest that no client asked for: {@link get} without a use that would be counted.
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
    this.#negative.assertNone(upstream, key, digest, "manifest");
    return this.bounded((signal) => this.fetch(upstream, key, digest, signal));
  }

  /** One GET by digest for all who ask at once, whether by digest or by tag. */
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
      this.#negative.note(upstream, key, digest, error);
      throw error;
    }
    return this.#stored.keep(key, digest, fetched);
  }

  /** Whether an upstream's bytes are those of the digest it named; counted where they are not. */
  isHashOf(digest: Digest, bytes: Buffer): boolean {
    const isRight = digestOf(bytes, digestAlgorithm(digest)) === digest;
    if (!isRight) this.#metrics.digestMismatches.inc();
    return isRight;
  }

  /** Asks the upstream for as long as it may take; less once the mirror is being closed. */
  bounded<T>(ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return withDeadline(ANSWER_DEADLINE_MS, ask, this.#closing.signal);
  }

  /** Ends what runs behind answers that were given. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#fetches.drain();
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
      // What only another upstream has linked must come from the one that is asked.
      row ??= await this.#index.getUpstreamBlob(key.upstream, digest);
    } catch {
      return undefined;
    }
    if (row?.mediaType === undefined) return undefined;
    if (!isLinked && !(await this.#isProven(upstream, key, row))) {
      return undefined;
    }
    const { sizeBytes, mediaType, storedAtMs } = row;
    const manifest = await this.#stored.read(key, digest, sizeBytes, mediaType);
    return manifest && { manifest, storedAtMs };
  }

  /** @returns false if HEAD is not offered or does not work: then only the bytes prove anything */
  async #isProven(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    row: BlobRow,
  ): Promise<boolean> {
    const { digest } = row;
    this.#negative.assertNone(upstream, key, digest, "manifest");
    try {
      await this.#links.prove(upstream, key, digest, "manifest", row);
      return true;
    } catch (error) {
      if (isHeadUnknown(error)) return false;
      if (isHeadDoubtful(error) && !isNotFound(error)) return false;
      this.#negative.note(upstream, key, digest, error);
      throw error;
    }
  }
}
