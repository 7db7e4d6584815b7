import { setTimeout as delay } from "node:timers/promises";
import { digestAlgorithm, type Digest } from "../../oci/digest.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import type { BlobWriter, UploadId } from "../../storage/blob-store.ts";
import type { UploadRow } from "../../storage/hosted-index.ts";
import type { TrackedBlobStore } from "../../storage/tracked-blob-store.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { BodyCut, UploadBody } from "./upload-body.ts";
import type { ReservedBytes } from "./upload-quota.ts";
import { busyUpload } from "./upload-refusal.ts";

/** A request that received nothing for this long is ended when another request of its upload arrives. */
const STALE_AFTER_MS = 10_000;
/** The bound of the wait for a request that is being ended: it ends after its current write. */
const HAND_OVER_MS = 5_000;

export interface SessionParts {
  readonly blobs: Pick<TrackedBlobStore, "beginWrite">;
  readonly reserved: ReservedBytes;
  readonly clock: Clock;
}

/** The one request or upkeep that uses a session. */
interface Use {
  /** Absent: upkeep, which ends soon. */
  readonly body: UploadBody | undefined;
  readonly isUpkeep: boolean;
  readonly startedAtMs: number;
  readonly ended: Promise<void>;
}

/**
 * One upload: its bytes so far, and the request that adds to them. The writer stays open between
 * requests, because opening it again hashes all bytes again.
 */
export class UploadSession {
  readonly id: UploadId;
  readonly key: RepositoryKey;
  readonly startedAtMs: number;
  /** Whether the index has a row for it, so that it survives a restart. */
  isRecorded = false;
  /** The upload was completed, cancelled or dropped. */
  hasEnded = false;
  /** When it was last used, by the monotonic clock. */
  usedAtMs: number;
  /** When it last received bytes, by the monotonic clock. */
  touchedAtMs: number;
  /** The value of {@link touchedAtMs} that the index has. */
  recordedAtMs: number;
  readonly #parts: SessionParts;
  #algorithm: UploadRow["algorithm"];
  #writer: BlobWriter | undefined;
  #writtenBytes: number;
  /** Bytes that count against the quota: stored and announced ones. */
  #countedBytes = 0;
  #use: Use | undefined;

  /**
   * @param writtenBytes those that an earlier process left
   * @param idleMs the time since it last received bytes
   */
  constructor(
    parts: SessionParts,
    row: UploadRow,
    writtenBytes: number,
    idleMs: number,
  ) {
    this.#parts = parts;
    this.id = row.id;
    this.key = row.key;
    this.startedAtMs = row.startedAtMs;
    this.#algorithm = row.algorithm;
    this.#writtenBytes = writtenBytes;
    this.usedAtMs = parts.clock.monotonicMs() - idleMs;
    this.touchedAtMs = this.usedAtMs;
    this.recordedAtMs = this.usedAtMs;
    this.count(0);
  }

  get writtenBytes(): number {
    return this.#writer?.writtenBytes ?? this.#writtenBytes;
  }

  get isInUse(): boolean {
    return this.#use !== undefined;
  }

  /** The row that makes the upload survive a restart. */
  row(): UploadRow {
    const { clock } = this.#parts;
    const idleMs = clock.monotonicMs() - this.touchedAtMs;
    return {
      id: this.id,
      key: this.key,
      algorithm: this.#algorithm,
      startedAtMs: this.startedAtMs,
      // The monotonic clock has fractions of milliseconds, which the index does not store.
      touchedAtMs: Math.round(clock.nowMs() - idleMs),
    };
  }

  /** Notes that bytes arrived. */
  touch(): void {
    this.touchedAtMs = this.#parts.clock.monotonicMs();
  }

  /** Counts the stored bytes and `announcedBytes` more. */
  count(announcedBytes: number): void {
    const counted = this.hasEnded ? 0 : this.writtenBytes + announcedBytes;
    const { reserved } = this.#parts;
    reserved.add(this.key.upstream, counted - this.#countedBytes);
    this.#countedBytes = counted;
  }

  /**
   * Runs one request at a time. A running one whose client has left, or that received nothing
   * for ten seconds, is ended first.
   *
   * @throws RegistryError if another request is in progress
   */
  async use<T>(
    body: UploadBody | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    const running = this.#use;
    if (running !== undefined) {
      if (!running.isUpkeep && !this.#isStale(running)) throw busyUpload();
      await this.#endUse(running, "replaced");
    }
    return this.#run(body, false, work);
  }

  /** Ends the running request, if any, then runs `work`. @throws RegistryError if it does not end */
  async cancel<T>(work: () => Promise<T>): Promise<T> {
    if (this.#use !== undefined) await this.#endUse(this.#use, "cancelled");
    return this.#run(undefined, false, work);
  }

  /** Runs upkeep, unless the session is in use. */
  async upkeep(work: () => Promise<void>): Promise<void> {
    if (this.#use !== undefined || this.hasEnded) return;
    await this.#run(undefined, true, work);
  }

  /** Resolves when no request uses the session. */
  async settled(): Promise<void> {
    while (this.#use !== undefined) await this.#use.ended;
  }

  /**
   * Returns the writer, which continues the bytes that are stored.
   *
   * @param expectedBytes the size of the blob, if it is known
   * @throws StorageError
   */
  async writer(expectedBytes?: number): Promise<BlobWriter> {
    if (this.#writer === undefined) {
      const size = this.#writtenBytes === 0 ? expectedBytes : undefined;
      this.#writer = await this.#parts.blobs.beginWrite({
        kind: "upload",
        id: this.id,
        algorithm: this.#algorithm,
        ...(size === undefined ? {} : { expectedBytes: size }),
      });
      this.#writtenBytes = this.#writer.writtenBytes;
    }
    return this.#writer;
  }

  /**
   * Returns the digest of all bytes by the algorithm of `digest`. Bytes that were hashed by another
   * one are hashed again.
   *
   * @throws StorageError
   */
  async digestLike(digest: Digest): Promise<Digest> {
    const algorithm = digestAlgorithm(digest);
    if (algorithm !== this.#algorithm) {
      await this.suspend();
      this.#algorithm = algorithm;
    }
    return (await this.writer()).hash.digest();
  }

  /** Publishes the bytes. @throws StorageError; the bytes are then lost */
  async commit(digest: Digest): Promise<void> {
    const writer = await this.writer();
    this.#writtenBytes = writer.writtenBytes;
    this.#writer = undefined;
    await writer.commit(digest);
    // From now on the blob's row counts them.
    this.#writtenBytes = 0;
    this.count(0);
  }

  /** Closes the file and keeps its bytes. Never throws. */
  async suspend(): Promise<void> {
    const writer = this.#writer;
    if (writer === undefined) return;
    this.#writtenBytes = writer.writtenBytes;
    this.#writer = undefined;
    await writer.suspend();
  }

  /** Removes the bytes. @throws StorageError if they can't be opened */
  async removeBytes(): Promise<void> {
    if (this.#writer === undefined && this.#writtenBytes === 0) return;
    const writer = await this.writer();
    this.#writer = undefined;
    this.#writtenBytes = 0;
    await writer.abort();
  }

  #isStale({ body, startedAtMs }: Use): boolean {
    if (body?.hasLeft === true) return true;
    const lastMs = Math.max(startedAtMs, body?.progressedAtMs ?? 0);
    return this.#parts.clock.monotonicMs() - lastMs > STALE_AFTER_MS;
  }

  async #endUse(use: Use, reason: BodyCut): Promise<void> {
    use.body?.cut(reason);
    const end = new AbortController();
    await Promise.race([
      use.ended,
      delay(HAND_OVER_MS, undefined, { signal: end.signal }).catch(() => {}),
    ]);
    end.abort();
  }

  async #run<T>(
    body: UploadBody | undefined,
    isUpkeep: boolean,
    work: () => Promise<T>,
  ): Promise<T> {
    // The first of several waiting requests gets the session.
    if (this.#use !== undefined) throw busyUpload();
    const { promise, resolve } = Promise.withResolvers<void>();
    const { clock } = this.#parts;
    const startedAtMs = clock.monotonicMs();
    this.#use = { body, isUpkeep, startedAtMs, ended: promise };
    try {
      return await work();
    } finally {
      this.#use = undefined;
      if (!isUpkeep) this.usedAtMs = clock.monotonicMs();
      this.count(0);
      resolve();
    }
  }
}
