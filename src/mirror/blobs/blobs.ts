import type { BlobStore } from "../../storage/blob-store.ts";
import type { BlobRow, MetadataIndex } from "../../storage/metadata-index.ts";
import { type Digest, possibleSize } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import { type ByteRange, isAscending, resolveRanges } from "../../oci/range.ts";
import { cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../../wire/deadline.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { withinDeadline } from "../answer-deadline.ts";
import { offlineRefusal } from "../answers.ts";
import {
  BLOB_MEDIA_TYPE,
  type BlobAnswer,
  type BlobDemand,
  type BlobHead,
  isWhole,
} from "./blob-answer.ts";
import { type FillHead, PartialRefused } from "../fills/fill-download.ts";
import type { Body } from "./body.ts";
import type { Fills } from "../fills/fills.ts";
import type { Links } from "../links.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";
import type { NegativeAnswers } from "../negative-answers.ts";
import type { Fill, JoinedFill } from "../fills/running-fill.ts";
import { openSideRange } from "./side-range.ts";
import { StoredBlobs } from "./stored-blobs.ts";
import type { StoredReads } from "./stored-reads.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

/** How far ahead of a fill a range must lie to be worth a request of its own. */
const SIDE_RANGE_AHEAD_BYTES = 8 * 1024 * 1024;

/** A fill that ended in the moment of joining, then one whose partial was refused, then a fresh one. */
const MAX_ATTEMPTS = 3;

/** A head that waits for the digest is given up so long before the client has waited for too long. */
const VERDICT_MARGIN_MS = 500;

/** A client of a fill that waits for its slot is answered so long before it has waited for too long. */
const QUEUE_MARGIN_MS = 1_000;

/** Blobs: from the store, from a fill that runs, or from a new one. */
export class Blobs {
  readonly #stored: StoredBlobs;
  readonly #index: MetadataIndex;
  readonly #fills: Fills;
  readonly #links: Links;
  readonly #reads: StoredReads;
  readonly #negative: NegativeAnswers;
  readonly #clock: Clock;
  readonly #isOffline: () => boolean;

  constructor(options: {
    store: BlobStore;
    index: MetadataIndex;
    fills: Fills;
    links: Links;
    reads: StoredReads;
    negative: NegativeAnswers;
    clock: Clock;
    isOffline: () => boolean;
  }) {
    this.#stored = new StoredBlobs(options);
    this.#index = options.index;
    this.#fills = options.fills;
    this.#links = options.links;
    this.#reads = options.reads;
    this.#negative = options.negative;
    this.#clock = options.clock;
    this.#isOffline = options.isOffline;
  }

  /**
   * Opens a blob, or ranges of it.
   *
   * @throws Refusal, RegistryError, UpstreamError; nothing is open then
   */
  async open(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    demand: BlobDemand,
  ): Promise<BlobAnswer> {
    const startedAtMs = this.#clock.monotonicMs();
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const row = await this.#servableRow(upstream, key, digest);
      if (row !== undefined) {
        const answer = await this.#stored.open(row, demand);
        if (answer !== undefined) {
          return this.#noted(answer, digest, demand, startedAtMs);
        }
      }
      const running = this.#fills.get(key.upstream, digest);
      if (running === undefined) {
        this.#assertFetchable(upstream, key, digest, demand);
      } else if (running.key.repository !== key.repository) {
        await this.#prove(upstream, key, digest, undefined);
        this.#linkWhenStored(running, key);
      }
      const fill = running ?? this.#fills.start(upstream, key, digest);
      const answer = await this.#noting(upstream, key, digest, () =>
        this.#follow(upstream, key, fill, demand, {
          isJoin: running !== undefined,
          startedAtMs,
        }),
      );
      if (answer !== undefined) {
        return this.#noted(answer, digest, demand, startedAtMs);
      }
      await fill.ended;
    }
    throw new RegistryError("UNAVAILABLE", { detail: "the fill ended" });
  }

  /**
   * Fetches a blob that no client asked for: without a reader, so that it gives way to the downloads
   * of clients. Resolves when the blob is stored, or will not come.
   *
   * @throws Refusal, RegistryError, UpstreamError
   */
  async prefetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<void> {
    const answer = await this.open(upstream, key, digest, {});
    if (answer.kind === "body") answer.body.close();
    await this.#fills.get(key.upstream, digest)?.ended;
  }

  /** @throws Refusal, RegistryError, UpstreamError */
  async stat(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobHead> {
    const row = await this.#servableRow(upstream, key, digest);
    if (row !== undefined) {
      this.#index.touchBlob(digest, this.#clock.nowMs());
      return {
        sizeBytes: row.sizeBytes,
        mediaType: row.mediaType ?? BLOB_MEDIA_TYPE,
        status: cacheStatus.hit(),
        ageMs: this.#clock.nowMs() - row.storedAtMs,
      };
    }
    this.#assertFetchable(upstream, key, digest);
    if (!upstream.client.isDown()) {
      const descriptor = await this.#index
        .findDescriptor(key, digest)
        .catch(() => undefined);
      const sizeBytes = possibleSize(digest, descriptor?.sizeBytes);
      if (sizeBytes !== undefined) {
        return {
          sizeBytes,
          mediaType: BLOB_MEDIA_TYPE,
          status: cacheStatus.hit(),
          ageMs: undefined,
        };
      }
    }
    const head = await this.#noting(upstream, key, digest, () =>
      withDeadline(ANSWER_DEADLINE_MS, (signal) =>
        upstream.client.headBlob(key.repository, digest, signal),
      ),
    );
    return {
      sizeBytes: head.sizeBytes,
      mediaType: BLOB_MEDIA_TYPE,
      status: cacheStatus.notStored(200),
      ageMs: undefined,
    };
  }

  /**
   * The row of a stored blob that this repository may serve; an index that fails knows none, nor
   * does one in which only other upstreams have it linked: theirs is no proof for this one.
   */
  async #servableRow(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    let stored: BlobRow | undefined;
    try {
      const linked =
        this.#index.recallLinkedBlob(key, digest) ??
        (await this.#index.getLinkedBlob(key, digest));
      if (linked !== undefined) return linked;
      stored = await this.#index.getUpstreamBlob(key.upstream, digest);
    } catch {
      return undefined;
    }
    if (stored === undefined) return undefined;
    await this.#prove(upstream, key, digest, stored);
    return stored;
  }

  /** @throws Refusal, UpstreamError where the repository may not serve a blob that another one has */
  async #prove(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    known: BlobRow | undefined,
  ): Promise<void> {
    this.#negative.assertNone(upstream, key, digest, "blob");
    await this.#noting(upstream, key, digest, () =>
      this.#links.prove(upstream, key, digest, "blob", known),
    );
  }

  /** There is nothing to link before: the proof of one who joins would be lost with the fill. */
  #linkWhenStored(fill: Fill, key: RepositoryKey): void {
    void fill.ended
      .then(async () => {
        const { digest } = fill;
        // Where the fill failed, only another upstream's bytes may be there.
        const row = await this.#index.getUpstreamBlob(key.upstream, digest);
        if (row !== undefined) await this.#index.link(key, digest);
      })
      .catch(() => {});
  }

  /** Remembers that the client was given the whole blob, or several parts of it, once it was. */
  #noted(
    answer: BlobAnswer,
    digest: Digest,
    { client }: BlobDemand,
    startedAtMs: number,
  ): BlobAnswer {
    if (client === undefined || answer.kind === "unsatisfiable") return answer;
    if (answer.kind === "body" && !isWhole(answer.range, answer.sizeBytes)) {
      return answer;
    }
    const onGiven = (): void =>
      this.#reads.noteGiven(client, digest, startedAtMs);
    return { ...answer, onGiven };
  }

  #assertFetchable(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    { ranges }: BlobDemand = {},
  ): void {
    if (this.#isOffline()) throw offlineRefusal("blob");
    this.#negative.assertNone(upstream, key, digest, "blob");
    if (ranges !== undefined && this.#fills.isBanned(key.upstream, digest)) {
      throw new RegistryError("UNAVAILABLE", {
        detail: "the upstream's bytes were not those of the digest",
      });
    }
  }

  /** Remembers that the upstream has no such blob, or not for us. */
  async #noting<T>(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.#negative.note(upstream, key, digest, error);
      throw error;
    }
  }

  /**
   * Follows a fill, or takes a range far ahead of it from the upstream.
   *
   * @returns undefined when the fill ended before it could be joined, or must be started anew
   */
  async #follow(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    fill: Fill,
    demand: BlobDemand,
    { isJoin, startedAtMs }: { isJoin: boolean; startedAtMs: number },
  ): Promise<BlobAnswer | undefined> {
    const elapsedMs = this.#clock.monotonicMs() - startedAtMs;
    const reader = await fill.openReader(
      ANSWER_DEADLINE_MS - QUEUE_MARGIN_MS - elapsedMs,
    );
    if (reader === undefined) return undefined;
    const { ranges: specs } = demand;
    try {
      const { sizeBytes, status } = await this.#headOf(
        upstream,
        key,
        fill.digest,
        reader,
        demand,
        startedAtMs,
      );
      const whole: Omit<BlobAnswer & { kind: "body" }, "body"> = {
        kind: "body",
        sizeBytes,
        range: undefined,
        mediaType: BLOB_MEDIA_TYPE,
        status: isJoin
          ? cacheStatus.collapsed()
          : reader.isStored
            ? cacheStatus.stored(status)
            : cacheStatus.notStored(status),
        ageMs: undefined,
        source: isJoin ? "cache" : "upstream",
      };
      if (specs === undefined || sizeBytes === undefined) {
        return { ...whole, body: reader.body };
      }
      const ranges = resolveRanges(specs, sizeBytes);
      const [range] = ranges;
      if (range === undefined) {
        reader.body.close();
        return { kind: "unsatisfiable", sizeBytes, status: whole.status };
      }
      if (ranges.length > 1) {
        // A fill is followed forwards only.
        return isAscending(ranges)
          ? { ...whole, kind: "parts", sizeBytes, ranges, body: reader.body }
          : { ...whole, body: reader.body };
      }
      const side = await this.#openSideRange(
        upstream,
        key,
        fill,
        { receivedBytes: reader.receivedBytes, sizeBytes },
        range,
      );
      if (side !== undefined) {
        reader.body.close();
        return {
          ...whole,
          range,
          status: cacheStatus.partial(),
          source: "upstream",
          body: side,
        };
      }
      reader.body.setRange(range.first, range.last);
      return { ...whole, range, body: reader.body };
    } catch (error) {
      reader.body.close();
      if (error instanceof PartialRefused) return undefined;
      throw error;
    }
  }

  /**
   * The head of a fill. Where its size is not the one that a manifest of this repository names, it
   * waits for the digest, and no longer than a client does; the fill goes on.
   */
  async #headOf(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    reader: JoinedFill,
    { isSizeNeeded }: BlobDemand,
    startedAtMs: number,
  ): Promise<FillHead> {
    let isWaitingForDigest = false;
    const known = async (): Promise<FillHead> => {
      const head = await reader.head;
      const descriptor = await this.#index
        .findDescriptor(key, digest)
        .catch(() => undefined);
      const named = possibleSize(digest, descriptor?.sizeBytes);
      const { sizeBytes } = head;
      // A size that only a manifest of a later time names is not announced: the fill withholds the
      // tail of its own end, which may lie beyond it.
      const isKnown =
        sizeBytes === undefined
          ? isSizeNeeded !== true
          : sizeBytes === (named ?? sizeBytes);
      if (isKnown) return head;
      isWaitingForDigest = true;
      return { ...head, sizeBytes: await reader.verifiedSize() };
    };
    const elapsedMs = this.#clock.monotonicMs() - startedAtMs;
    try {
      return await withinDeadline(
        known(),
        upstream.name,
        () => {},
        Math.max(0, ANSWER_DEADLINE_MS - VERDICT_MARGIN_MS - elapsedMs),
      );
    } catch (error) {
      const isLate = error instanceof UpstreamError && error.kind === "timeout";
      if (!isWaitingForDigest || (error instanceof UpstreamError && !isLate))
        throw error;
      throw new UpstreamError(
        "bad-response",
        "no size can be announced before the digest is right",
        { upstream: upstream.name, cause: error },
      );
    }
  }

  async #openSideRange(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    fill: Fill,
    blob: { readonly receivedBytes: number; readonly sizeBytes: number },
    range: ByteRange,
  ): Promise<Body | undefined> {
    const isFarAhead =
      range.first > blob.receivedBytes + SIDE_RANGE_AHEAD_BYTES;
    const release = isFarAhead ? fill.takeSideRange() : undefined;
    if (release === undefined) return undefined;
    return openSideRange({
      range,
      sizeBytes: blob.sizeBytes,
      open: (options) =>
        upstream.client.openBlob(key.repository, fill.digest, options),
      onClose: release,
    });
  }
}
