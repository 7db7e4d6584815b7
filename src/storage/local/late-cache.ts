import { type BlobStore, StorageError } from "../blob-store.ts";
import { diskLayout } from "./root/disk-layout.ts";
import { nodeFileSystem } from "./root/file-system.ts";
import { forwardTo } from "./index/forward-index.ts";
import { createFsBlobStore } from "./blobs/fs-blob-store.ts";
import { guardFileSystem } from "./root/guarded-file-system.ts";
import { diskFault } from "./root/make-root.ts";
import {
  openCache,
  type OpenCacheOptions,
  type OpenedCache,
} from "./open-cache.ts";
import { RootAwayError } from "./root/root-watch.ts";
import { type Schedule, scheduleUnref } from "../../telemetry/clock.ts";

const RETRY_AFTER_MS = 5_000;

/**
 * Opens a storage root, now or later: on a disk that is full, read-only or fails, the cache is
 * there at once without its storage, as it is while its root is away, and the root is tried again
 * every five seconds.
 *
 * @throws as {@link openCache}, if the disk is not at fault
 */
export async function openCacheOrWait(
  options: OpenCacheOptions,
  schedule: Schedule = scheduleUnref,
): Promise<OpenedCache> {
  try {
    return await openCache(options);
  } catch (error) {
    const code = diskFault(error);
    if (code === undefined) throw error;
    return new LateCache(options, schedule, code, error);
  }
}

/** Every member is that of the cache once it is open. */
class LateCache implements OpenedCache {
  readonly blobs: BlobStore;
  readonly index: OpenedCache["index"];
  readonly #options: OpenCacheOptions;
  readonly #schedule: Schedule;
  /** For hashes of bytes that pass through; all else fails. */
  readonly #noBlobs: BlobStore;
  readonly #ended = Promise.withResolvers<void>();
  /** The system's code, or in words. */
  #code: string;
  #opened: OpenedCache | undefined;
  #opening: Promise<void> = Promise.resolve();
  #isClosed = false;
  #cancel: (() => void) | undefined;

  constructor(
    options: OpenCacheOptions,
    schedule: Schedule,
    code: string,
    error: unknown,
  ) {
    this.#options = options;
    this.#schedule = schedule;
    this.#code = code;
    const { root, log, onAbsence } = options;
    this.#noBlobs = createFsBlobStore({
      layout: diskLayout(root),
      fileSystem: guardFileSystem(nodeFileSystem, {
        isAway: true,
        assertHere: () => Promise.reject(new RootAwayError()),
      }),
    });
    this.index = forwardTo(() => this.#opened?.index);
    this.blobs = forwardStore(() => this.#opened?.blobs ?? this.#noBlobs);
    log.error(
      { root, fault: code, err: error },
      "the storage can't be opened: pulls pass through until it can",
    );
    onAbsence?.(this.absence);
    this.#tryLater();
  }

  get absence(): OpenedCache["absence"] {
    return this.#opened === undefined
      ? `the root can't be opened: ${this.#code}`
      : this.#opened.absence;
  }

  get lock(): OpenedCache["lock"] {
    return this.#opened?.lock ?? { release: () => undefined };
  }

  get isRecovering(): boolean {
    return this.#opened?.isRecovering ?? false;
  }

  get isOutOfRoom(): boolean {
    return this.#opened?.isOutOfRoom ?? false;
  }

  get audit(): OpenedCache["audit"] {
    return this.#required().audit;
  }

  get scrubParts(): OpenedCache["scrubParts"] {
    return this.#required().scrubParts;
  }

  async recovered(): Promise<void> {
    await this.#ended.promise;
    await this.#opened?.recovered();
  }

  async probeStorage(): Promise<void> {
    await this.#required().probeStorage();
  }

  async scrub(
    options: Parameters<OpenedCache["scrub"]>[0],
  ): ReturnType<OpenedCache["scrub"]> {
    return this.#required().scrub(options);
  }

  async restoreBallast(): Promise<void> {
    await this.#opened?.restoreBallast();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel?.();
    await this.#opening;
    this.#ended.resolve();
    await this.#noBlobs.close();
    await this.#opened?.close();
  }

  /** @throws StorageError */
  #required(): OpenedCache {
    if (this.#opened !== undefined) return this.#opened;
    throw new StorageError("open", this.#code);
  }

  #tryLater(): void {
    this.#cancel = this.#schedule(() => {
      this.#opening = this.#try();
    }, RETRY_AFTER_MS);
  }

  async #try(): Promise<void> {
    const { root, log, onAbsence } = this.#options;
    try {
      this.#opened = await openCache(this.#options);
    } catch (error) {
      if (this.#isClosed) return;
      const code = diskFault(error) ?? messageOf(error);
      if (code !== this.#code) {
        this.#code = code;
        log.warn({ root, err: error }, "the storage still can't be opened");
        onAbsence?.(this.absence);
      }
      this.#tryLater();
      return;
    }
    log.info({ root }, "the storage could be opened and is used from now on");
    onAbsence?.(this.absence);
    this.#ended.resolve();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function forwardStore(current: () => BlobStore): BlobStore {
  return {
    open: (...input) => current().open(...input),
    read: (...input) => current().read(...input),
    put: (...input) => current().put(...input),
    beginWrite: (...input) => current().beginWrite(...input),
    createHash: (...input) => current().createHash(...input),
    verify: (...input) => current().verify(...input),
    list: (...input) => current().list(...input),
    remove: (...input) => current().remove(...input),
    probe: () => current().probe(),
    close: () => current().close(),
  };
}
