import type { BlobStore } from "../../storage/blob-store.ts";
import type {
  BlobLinks,
  BlobRecords,
  BlobRow,
} from "../../storage/blob-index.ts";
import type { ImageGraph } from "../../storage/graph-index.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import { type Digest, possibleSize } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import { cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../../wire/deadline.ts";
import { offlineRefusal } from "../answers.ts";
import {
  BLOB_MEDIA_TYPE,
  type BlobAnswer,
  type BlobDemand,
  type BlobHead,
  isWhole,
} from "./blob-answer.ts";
import { FillAnswers } from "./fill-answers.ts";
import type { Fills } from "../fills/fills.ts";
import type { Links } from "../links.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";
import type { NegativeAnswers } from "../negative-answers.ts";
import type { Fill } from "../fills/running-fill.ts";
import { StoredBlobs } from "./stored-blobs.ts";
import type { StoredReads } from "./stored-reads.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

type BlobsIndex = Pick<
  BlobLinks,
  "getLinkedBlob" | "recallLinkedBlob" | "getUpstreamBlob" | "link"
> &
  Pick<BlobRecords, "forgetBlob"> &
  Pick<ImageGraph, "findDescriptor"> &
  Pick<UseIndex, "touchBlob">;

/** A fill that ended in the moment of joining, then one whose partial was refused, then a fresh one. */
const MAX_ATTEMPTS = 3;

/** Blobs: from the store, from a fill that runs, or from a new one. */
export class Blobs {
  readonly #stored: StoredBlobs;
  readonly #followed: FillAnswers;
  readonly #index: BlobsIndex;
  readonly #fills: Fills;
  readonly #links: Links;
  readonly #reads: StoredReads;
  readonly #negative: NegativeAnswers;
  readonly #clock: Clock;
  readonly #isOffline: () => boolean;

  constructor(options: {
    store: BlobStore;
    index: BlobsIndex;
    fills: Fills;
    links: Links;
    reads: StoredReads;
    negative: NegativeAnswers;
    clock: Clock;
    isOffline: () => boolean;
  }) {
    this.#stored = new StoredBlobs(options);
    this.#followed = new FillAnswers(options);
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
      const isJoin = running !== undefined;
      const answer = await this.#noting(upstream, key, digest, () =>
        this.#followed.open({
          upstream,
          key,
          fill,
          demand,
          isJoin,
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
   * Fetches a blob that no client has requested. Its download has no reader, so that it yields to
   * the downloads of clients.
   *
   * @returns whether the blob is stored, once its download has ended
   * @throws Refusal, RegistryError, UpstreamError
   */
  async prefetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<boolean> {
    const answer = await this.open(upstream, key, digest, {});
    if (answer.kind !== "unsatisfiable") answer.body.close();
    await this.#fills.get(key.upstream, digest)?.ended;
    if (answer.status.outcome === "hit") return true;
    const row = await this.#index
      .getUpstreamBlob(key.upstream, digest)
      .catch(() => undefined);
    return row !== undefined;
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
}
