import { randomUUID } from "node:crypto";
import type { DigestAlgorithm } from "../../oci/digest.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import { parseUploadId, type UploadId } from "../../storage/blob-store.ts";
import type { HostedUploads, UploadRow } from "../../storage/hosted-index.ts";
import type { TrackedBlobStore } from "../../storage/tracked-blob-store.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { ReservedBytes } from "./upload-quota.ts";
import { tooManyUploads, unknownUpload } from "./upload-refusal.ts";
import { UploadSession } from "./upload-session.ts";

/** The most uploads, open and idle, with or without bytes. */
const MAX_UPLOADS = 10_000;
/** A client sends its next chunk within seconds; an upload that waits longer needs no open file. */
const OPEN_MS = 30_000;
const SWEEP_EVERY_MS = 10_000;
/** The interval at which the time of the last bytes is recorded; after a restart an upload may expire by as much too early. */
const RECORD_EVERY_MS = 60_000;
const PAGE = 200;

export interface UploadSessionsOptions {
  readonly blobs: Pick<TrackedBlobStore, "beginWrite" | "readUploadSize">;
  readonly index: HostedUploads;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics: Pick<Metrics, "uploadsInProgress">;
  /** Returns how many uploads may be open at a time. */
  readonly maxOpen: () => number;
  /** Returns how long an upload of a registry is kept while it receives nothing. */
  readonly expiryMs: (registry: string) => number;
  /** Replaces {@link MAX_UPLOADS}. */
  readonly maxUploads?: number;
  readonly schedule?: Schedule;
}

/**
 * All uploads of this server. Those that are in use or were used within half a minute are *open* and
 * may have an open file; the others are *idle*: a row in the index, and bytes on disk.
 */
export class UploadSessions {
  readonly reserved = new ReservedBytes();
  readonly #options: UploadSessionsOptions;
  readonly #schedule: Schedule;
  readonly #sessions = new Map<UploadId, UploadSession>();
  readonly #loading = new Map<UploadId, Promise<UploadSession | undefined>>();
  /** Ended uploads whose rows still exist. */
  readonly #ended = new Set<UploadId>();
  /** In the order of their start; a subset of the sessions. */
  readonly #open = new Set<UploadSession>();
  #cancelSweep: (() => void) | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #hasListed = false;
  #isStopped = false;

  constructor(options: UploadSessionsOptions) {
    this.#options = options;
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  /** Counts the uploads of an earlier process, and drops expired ones from now on. */
  start(): void {
    if (!this.#isStopped) this.#sweepSoon(0);
  }

  /** Keeps the bytes of all uploads; requests must have ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelSweep?.();
    await this.#sweeping;
    for (const session of this.#open) {
      await session.settled();
      await session.suspend();
    }
    this.#open.clear();
  }

  /**
   * Starts an upload with an id that can't be guessed.
   *
   * @param isRecorded whether it survives a restart
   * @throws RegistryError if there are too many; IndexError
   */
  async create(
    key: RepositoryKey,
    algorithm: DigestAlgorithm,
    isRecorded: boolean,
  ): Promise<UploadSession> {
    const { clock, index, maxUploads = MAX_UPLOADS } = this.#options;
    this.#assertMayOpen();
    if (this.#sessions.size >= maxUploads) await this.#dropEmpty();
    const id = parseUploadId(randomUUID());
    if (id === undefined) throw new Error("a UUID is not an upload id");
    const nowMs = clock.nowMs();
    const session = this.#add(
      { id, key, algorithm, startedAtMs: nowMs, touchedAtMs: nowMs },
      0,
    );
    this.#open.add(session);
    if (!isRecorded) return session;
    try {
      await index.putUpload(session.row());
      session.isRecorded = true;
    } catch (error) {
      this.#forget(session);
      throw error;
    }
    return session;
  }

  /**
   * Finds an upload of a repository.
   *
   * @throws RegistryError if it does not exist or is of another repository; StorageError; IndexError
   */
  async find(key: RepositoryKey, id: string): Promise<UploadSession> {
    const uploadId = parseUploadId(id);
    const session =
      uploadId &&
      (this.#sessions.get(uploadId) ?? (await this.#load(uploadId)));
    if (
      session === undefined ||
      session.hasEnded ||
      session.key.upstream !== key.upstream ||
      session.key.repository !== key.repository
    ) {
      throw unknownUpload();
    }
    return session;
  }

  /** Opens an idle upload again. @throws RegistryError if too many are open */
  open(session: UploadSession): void {
    if (session.hasEnded) throw unknownUpload();
    if (this.#open.has(session)) return;
    this.#assertMayOpen();
    this.#open.add(session);
  }

  /** Drops an upload and the bytes that it still has. Never throws: the next sweep tries again. */
  async drop(session: UploadSession): Promise<void> {
    try {
      await session.removeBytes();
    } catch {
      // The request reports the failing storage. By the row a later process finds the bytes.
      await session.suspend();
      return;
    }
    this.end(session);
  }

  /** Forgets an upload whose bytes are published or removed. */
  end(session: UploadSession): void {
    const { isRecorded, id } = session;
    this.#forget(session);
    if (!isRecorded) return;
    this.#ended.add(id);
    // Not awaited: a remaining row is an upload without bytes, which expires.
    void this.#options.index
      .dropUpload(id)
      .catch(() => {})
      .finally(() => this.#ended.delete(id));
  }

  /** Records when an upload received bytes, at most once a minute. */
  noteBytes(session: UploadSession): void {
    if (!session.isRecorded || session.hasEnded) return;
    if (session.touchedAtMs - session.recordedAtMs < RECORD_EVERY_MS) return;
    session.recordedAtMs = session.touchedAtMs;
    void this.#options.index.putUpload(session.row()).catch(() => {});
  }

  #assertMayOpen(): void {
    if (this.#open.size >= this.#options.maxOpen()) throw tooManyUploads();
  }

  #add(row: UploadRow, sizeBytes: number): UploadSession {
    const { clock, metrics, blobs } = this.#options;
    const idleMs = Math.max(0, clock.nowMs() - row.touchedAtMs);
    const parts = { blobs, reserved: this.reserved, clock };
    const session = new UploadSession(parts, row, sizeBytes, idleMs);
    this.#sessions.set(row.id, session);
    metrics.uploadsInProgress.inc({ registry: row.key.upstream });
    return session;
  }

  #forget(session: UploadSession): void {
    if (session.hasEnded) return;
    session.hasEnded = true;
    session.count(0);
    this.#sessions.delete(session.id);
    this.#open.delete(session);
    const registry = session.key.upstream;
    this.#options.metrics.uploadsInProgress.dec({ registry });
  }

  /** Loads an upload of an earlier process, once for all callers. */
  #load(id: UploadId): Promise<UploadSession | undefined> {
    const running = this.#loading.get(id);
    if (running !== undefined) return running;
    const load = this.#read(id).finally(() => this.#loading.delete(id));
    this.#loading.set(id, load);
    return load;
  }

  async #read(id: UploadId): Promise<UploadSession | undefined> {
    const row = await this.#options.index.getUpload(id);
    return row && this.#adopt(row);
  }

  /** @returns undefined if the upload has ended */
  async #adopt(row: UploadRow): Promise<UploadSession | undefined> {
    if (this.#ended.has(row.id)) return undefined;
    const sizeBytes = await this.#options.blobs.readUploadSize(row.id);
    const known = this.#sessions.get(row.id);
    if (known !== undefined) return known;
    const session = this.#add(row, sizeBytes);
    session.isRecorded = true;
    return session;
  }

  // --- upkeep ----------------------------------------------------------------------------------

  #sweepSoon(delayMs: number): void {
    this.#cancelSweep = this.#schedule(() => {
      this.#sweeping = this.#sweep().then(() => {
        if (!this.#isStopped) this.#sweepSoon(SWEEP_EVERY_MS);
      });
    }, delayMs);
  }

  /** Never rejects. */
  async #sweep(): Promise<void> {
    try {
      if (!this.#hasListed) await this.#list();
    } catch {
      // The storage is absent, which its watch has logged; the next sweep tries again.
    }
    const { clock, expiryMs } = this.#options;
    // A map may change while it is iterated.
    for (const session of this.#sessions.values()) {
      if (this.#isStopped) return;
      if (session.isInUse) continue;
      const nowMs = clock.monotonicMs();
      const expiry = expiryMs(session.key.upstream);
      if (nowMs - session.touchedAtMs >= expiry) await this.#expire(session);
      else if (nowMs - session.usedAtMs >= OPEN_MS) await this.#close(session);
    }
  }

  async #list(): Promise<void> {
    let last: UploadId | undefined;
    for (;;) {
      const rows = await this.#options.index.listUploads(PAGE, last);
      for (const row of rows) {
        if (!this.#sessions.has(row.id)) await this.#adopt(row);
      }
      last = rows.at(-1)?.id;
      if (last === undefined || this.#isStopped) break;
    }
    this.#hasListed = true;
  }

  async #close(session: UploadSession): Promise<void> {
    if (!this.#open.has(session)) return;
    await session.upkeep(async () => {
      await session.suspend();
      this.#open.delete(session);
    });
  }

  async #expire(session: UploadSession): Promise<void> {
    const { writtenBytes, id, key } = session;
    await session.upkeep(() => this.drop(session));
    if (!session.hasEnded) return;
    this.#options.log.info(
      {
        upload: id,
        registry: key.upstream,
        repository: key.repository,
        sizeBytes: writtenBytes,
      },
      "dropped an upload that received nothing for too long",
    );
  }

  /** Makes room for one more upload by dropping the one without bytes that was used longest ago. */
  async #dropEmpty(): Promise<void> {
    let oldest: UploadSession | undefined;
    for (const session of this.#sessions.values()) {
      if (session.isInUse || session.writtenBytes > 0) continue;
      if (oldest === undefined || session.usedAtMs < oldest.usedAtMs) {
        oldest = session;
      }
    }
    const empty = oldest;
    await empty?.upkeep(() => this.drop(empty));
    if (empty?.hasEnded !== true) throw tooManyUploads();
  }
}
