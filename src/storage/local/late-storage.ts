import { type Schedule, scheduleUnref } from "../../telemetry/clock.ts";
import { StorageError } from "../blob-store.ts";
import { IndexAwayError, type MetadataIndex } from "../metadata-index.ts";
import type { Storage, StorageAbsence, StorageUpkeep } from "../storage.ts";
import {
  type TrackedBlobStore,
  trackBlobStore,
} from "../tracked-blob-store.ts";
import { createFsBlobStore } from "./blobs/fs-blob-store.ts";
import { forwardTo } from "../forward-index.ts";
import {
  type LocalStorage,
  type LocalStorageOptions,
  openLocalStorage,
} from "./open-local-storage.ts";
import { diskLayout } from "./root/disk-layout.ts";
import { nodeFileSystem } from "./root/file-system.ts";
import { guardFileSystem } from "./root/guarded-file-system.ts";
import { diskFault } from "./root/make-root.ts";
import { RootAwayError } from "./root/root-watch.ts";
import { BackgroundScrub } from "./upkeep/background-scrub.ts";
import { messageOf } from "../../telemetry/error-record.ts";

const RETRY_AFTER_MS = 5_000;

/**
 * Opens a storage root now or later. If its disk is full, read-only or failing, returns a storage
 * that behaves as while its root is absent, and retries every five seconds.
 *
 * @throws like {@link openLocalStorage}, unless the disk is at fault
 */
export async function openLocalStorageOrWait(
  options: LocalStorageOptions,
  schedule: Schedule = scheduleUnref,
): Promise<Storage> {
  try {
    return await openLocalStorage(options);
  } catch (error) {
    const code = diskFault(error);
    if (code === undefined) throw error;
    return new LateStorage(options, schedule, code, error);
  }
}

/** Forwards every call to the storage once it is open. */
class LateStorage implements Storage {
  readonly blobs: TrackedBlobStore;
  readonly index: MetadataIndex;
  readonly upkeep: StorageUpkeep;
  readonly #options: LocalStorageOptions;
  readonly #schedule: Schedule;
  /** Creates hashes for bytes that pass through; all its other operations fail. */
  readonly #noBlobs: TrackedBlobStore;
  readonly #ended = Promise.withResolvers<void>();
  /** The system's code or a message. */
  #code: string;
  #opened: LocalStorage | undefined;
  #opening: Promise<void> = Promise.resolve();
  #isClosed = false;
  #cancel: (() => void) | undefined;

  constructor(
    options: LocalStorageOptions,
    schedule: Schedule,
    code: string,
    error: unknown,
  ) {
    this.#options = options;
    this.#schedule = schedule;
    this.#code = code;
    const { root, log, onAbsence } = options;
    this.#noBlobs = trackBlobStore(
      createFsBlobStore({
        layout: diskLayout(root),
        fileSystem: guardFileSystem(nodeFileSystem, {
          isAway: true,
          assertHere: () => Promise.reject(new RootAwayError()),
        }),
      }),
    );
    this.index = forwardTo(() => this.#opened?.index);
    this.blobs = forwardStore(() => this.#opened?.blobs ?? this.#noBlobs);
    this.upkeep = this.#forwardUpkeep();
    log.error(
      { root, fault: code, err: error },
      "the storage root can't be opened: pulls pass through, retrying every 5 s",
    );
    onAbsence?.(this.#absence);
    this.#tryLater();
  }

  async probe(): Promise<void> {
    await this.#required().probe();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel?.();
    await this.#opening;
    this.#ended.resolve();
    await this.#noBlobs.close();
    await this.#opened?.close();
  }

  get #absence(): StorageAbsence | undefined {
    return this.#opened === undefined
      ? `the root can't be opened: ${this.#code}`
      : this.#opened.upkeep.absence;
  }

  /** @throws StorageError */
  #required(): LocalStorage {
    if (this.#opened !== undefined) return this.#opened;
    throw new StorageError("open", this.#code);
  }

  #forwardUpkeep(): StorageUpkeep {
    const absence = (): StorageAbsence | undefined => this.#absence;
    const current = () => this.#opened?.upkeep;
    const { clock, log } = this.#options;
    return {
      get absence() {
        return absence();
      },
      get isRecovering() {
        return current()?.isRecovering ?? false;
      },
      get isOutOfRoom() {
        return current()?.isOutOfRoom ?? false;
      },
      recovered: async () => {
        await this.#ended.promise;
        await current()?.recovered();
      },
      readSpace: async () => current()?.readSpace(),
      clearLeftovers: async (partialsBytes) =>
        this.#required().upkeep.clearLeftovers(partialsBytes),
      scrub: async (request) => this.#required().upkeep.scrub(request),
      dropBlob: async (...input) => this.#required().upkeep.dropBlob(...input),
      startBackgroundScrub: (request) =>
        new BackgroundScrub({
          ...request,
          parts: () => {
            const upkeep = current();
            if (upkeep === undefined) throw new IndexAwayError("scrub");
            return upkeep.scrubParts;
          },
          clock,
          log,
        }),
    };
  }

  #tryLater(): void {
    this.#cancel = this.#schedule(() => {
      this.#opening = this.#try();
    }, RETRY_AFTER_MS);
  }

  async #try(): Promise<void> {
    const { root, log, onAbsence } = this.#options;
    try {
      this.#opened = await openLocalStorage(this.#options);
    } catch (error) {
      if (this.#isClosed) return;
      const code = diskFault(error) ?? messageOf(error);
      if (code !== this.#code) {
        this.#code = code;
        log.warn(
          { root, err: error },
          "the storage root still can't be opened",
        );
        onAbsence?.(this.#absence);
      }
      this.#tryLater();
      return;
    }
    log.info({ root }, "the storage root was opened and is used from now on");
    onAbsence?.(this.#absence);
    this.#ended.resolve();
  }
}

function forwardStore(current: () => TrackedBlobStore): TrackedBlobStore {
  return {
    open: (...input) => current().open(...input),
    read: (...input) => current().read(...input),
    put: (...input) => current().put(...input),
    beginWrite: (...input) => current().beginWrite(...input),
    readUploadSize: (id) => current().readUploadSize(id),
    createHash: (...input) => current().createHash(...input),
    verify: (...input) => current().verify(...input),
    list: (...input) => current().list(...input),
    remove: (...input) => current().remove(...input),
    isBusy: (key) => current().isBusy(key),
    claim: (keys) => current().claim(keys),
    hold: (digest) => current().hold(digest),
    probe: () => current().probe(),
    close: () => current().close(),
  };
}
