import { type BlobStore, StorageError } from "../../blob-store.ts";

/** A readiness check waits for the disk no longer than this. */
const PATIENCE_MS = 1_000;

/** Checks whether the storage accepts writes, one check at a time, without waiting for a slow disk. */
export class StorageProbe {
  readonly #blobs: Pick<BlobStore, "probe">;
  readonly #patienceMs: number;
  #running: Promise<void> | undefined;

  constructor(blobs: Pick<BlobStore, "probe">, patienceMs = PATIENCE_MS) {
    this.#blobs = blobs;
    this.#patienceMs = patienceMs;
  }

  /** @throws StorageError; `ETIMEDOUT` if the disk has not answered in time */
  async probe(): Promise<void> {
    this.#running ??= this.#blobs.probe().finally(() => {
      this.#running = undefined;
    });
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new StorageError("probe", "ETIMEDOUT")),
      this.#patienceMs,
    );
    try {
      await Promise.race([this.#running, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}
