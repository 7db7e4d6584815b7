import { type BlobStore, StorageError } from "../../blob-store.ts";

/** Whoever asks whether the mirror is ready waits for the disk no longer than this. */
const PATIENCE_MS = 1_000;

/** Asks whether the storage takes writes, one question at a time, and does not wait for a slow disk. */
export class StorageProbe {
  readonly #blobs: Pick<BlobStore, "probe">;
  readonly #patienceMs: number;
  #running: Promise<void> | undefined;

  constructor(blobs: Pick<BlobStore, "probe">, patienceMs = PATIENCE_MS) {
    this.#blobs = blobs;
    this.#patienceMs = patienceMs;
  }

  /** @throws StorageError; `ETIMEDOUT` where the disk has not answered yet */
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
