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
} from "../../bodies/blob-answer.ts";
import { FillAnswers } from "./fill-answers.ts";
import type { Fills } from "../fills/fills.ts";
import type { Links } from "../links.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";
import type { NegativeAnswers } from "../negative-answers.ts";
import type { Fill } from "../fills/running-fill.ts";
import { StoredBlobs } from "../../bodies/stored-blobs.ts";
import type { StoredReads } from "../../bodies/stored-reads.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

type BlobsIndex = Pick<
  BlobLinks,
  "getLinkedBlob" | "recallLinkedBlob" | "getUpstreamBlob" | "link"
> &
  Pick<BlobRecords, "forgetBlob"> &
  Pick<ImageGraph, "findDescriptor"> &
  Pick<UseIndex, "touchBlob">;

/** A fill that ended while it was joined, then one whose partial file was refused, then a new one. */
const MAX_ATTEMPTS = 3;

interface BlobsParts {
  readonly store: BlobStore;
  readonly index: BlobsIndex;
  readonly fills: Fills;
  readonly links: Links;
  readonly reads: StoredReads;
  readonly negative: NegativeAnswers;
  readonly clock: Clock;
  readonly isOffline: () => boolean;
}

/** Answers requests for blobs from the store, a running fill, or a new one. */
export class Blobs {
  readonly #parts: BlobsParts;
  readonly #stored: StoredBlobs;
  readonly #followed: FillAnswers;

  constructor(parts: BlobsParts) {
    this.#parts = parts;
    this.#stored = new StoredBlobs(parts);
    this.#followed = new FillAnswers(parts);
  }

  /**
   * Opens a blob, or ranges of it.
   *
   * @throws Refusal, RegistryError, UpstreamError; nothing stays open in that case
   */
  async open(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    demand: BlobDemand,
  ): Promise<BlobAnswer> {
    const startedAtMs = this.#parts.clock.monotonicMs();
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const row = await this.#servableRow(upstream, key, digest);
      if (row !== undefined) {
        const answer = await this.#stored.open(row, demand);
        if (answer !== undefined) {
          return this.#remembering(answer, digest, demand, startedAtMs);
        }
      }
      const { fills } = this.#parts;
      const isJoin = fills.get(key.upstream, digest) !== undefined;
      const fill = await this.#joinOrStart(upstream, key, digest, demand);
      const answer = await this.#noteFailure(upstream, key, digest, () =>
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
        return this.#remembering(answer, digest, demand, startedAtMs);
      }
      await fill.ended;
    }
    throw new RegistryError("UNAVAILABLE", {
      detail: "the download of the blob ended early",
    });
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
    for (let refusals = 0; ;) {
      if ((await this.#servableRow(upstream, key, digest)) !== undefined) {
        return true;
      }
      const fill = await this.#joinOrStart(upstream, key, digest, {});
      const end = await this.#noteFailure(upstream, key, digest, () =>
        fill.follow(),
      );
      if (end === "refused") refusals += 1;
      if (end === "ended" || refusals >= MAX_ATTEMPTS) {
        return this.#isStored(key, digest);
      }
    }
  }

  /** Returns the running fill of the blob, which must prove it for this repository, or starts one. */
  async #joinOrStart(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    demand: BlobDemand,
  ): Promise<Fill> {
    const running = this.#parts.fills.get(key.upstream, digest);
    if (running === undefined) {
      this.#assertFetchable(upstream, key, digest, demand);
      return this.#parts.fills.start(upstream, key, digest);
    }
    if (running.key.repository !== key.repository) {
      await this.#prove(upstream, key, digest, undefined);
      this.#linkWhenStored(running, key);
    }
    return running;
  }

  async #isStored(key: RepositoryKey, digest: Digest): Promise<boolean> {
    const row = await this.#parts.index
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
      this.#parts.index.touchBlob(digest, this.#parts.clock.nowMs());
      return {
        sizeBytes: row.sizeBytes,
        mediaType: row.mediaType ?? BLOB_MEDIA_TYPE,
        status: cacheStatus.hit(),
        ageMs: this.#parts.clock.nowMs() - row.storedAtMs,
      };
    }
    this.#assertFetchable(upstream, key, digest);
    if (!upstream.client.isDown()) {
      const descriptor = await this.#parts.index
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
    const head = await this.#noteFailure(upstream, key, digest, () =>
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
   * Returns the row of a stored blob that this repository may serve; undefined if the index fails, or
   * if only other upstreams have the blob linked, which proves nothing for this one.
   */
  async #servableRow(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<BlobRow | undefined> {
    let stored: BlobRow | undefined;
    try {
      const linked =
        this.#parts.index.recallLinkedBlob(key, digest) ??
        (await this.#parts.index.getLinkedBlob(key, digest));
      if (linked !== undefined) return linked;
      stored = await this.#parts.index.getUpstreamBlob(key.upstream, digest);
    } catch {
      return undefined;
    }
    if (stored === undefined) return undefined;
    await this.#prove(upstream, key, digest, stored);
    return stored;
  }

  /** @throws Refusal, UpstreamError if the repository may not serve a blob that another one has */
  async #prove(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    known: BlobRow | undefined,
  ): Promise<void> {
    this.#parts.negative.assertNone(upstream, key, digest, "blob");
    await this.#noteFailure(upstream, key, digest, () =>
      this.#parts.links.prove(upstream, key, digest, "blob", known),
    );
  }

  /** Links the blob after the fill: before, there is no row to link, and the proof would be lost. */
  #linkWhenStored(fill: Fill, key: RepositoryKey): void {
    void fill.ended
      .then(async () => {
        const { digest } = fill;
        // If the fill failed, the only stored bytes may be those of another upstream.
        const row = await this.#parts.index.getUpstreamBlob(
          key.upstream,
          digest,
        );
        if (row !== undefined) await this.#parts.index.link(key, digest);
      })
      .catch(() => {});
  }

  /** Adds to an answer that the client is remembered once it has received the blob. */
  #remembering(
    answer: BlobAnswer,
    digest: Digest,
    { client }: BlobDemand,
    startedAtMs: number,
  ): BlobAnswer {
    if (client === undefined || answer.kind === "unsatisfiable") return answer;
    if (answer.kind === "body" && !isWhole(answer.range, answer.sizeBytes)) {
      return answer;
    }
    const onSent = (): void =>
      this.#parts.reads.noteReceived(client, digest, startedAtMs);
    return { ...answer, onSent };
  }

  #assertFetchable(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    { ranges }: BlobDemand = {},
  ): void {
    if (this.#parts.isOffline()) throw offlineRefusal("blob");
    this.#parts.negative.assertNone(upstream, key, digest, "blob");
    if (
      ranges !== undefined &&
      this.#parts.fills.isBanned(key.upstream, digest)
    ) {
      throw new RegistryError("UNAVAILABLE", {
        detail: "the upstream's bytes did not match the digest",
      });
    }
  }

  /** Runs work, and remembers if the upstream reports the blob as absent or refused. */
  async #noteFailure<T>(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.#parts.negative.note(upstream, key, digest, error);
      throw error;
    }
  }
}
