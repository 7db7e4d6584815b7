import type { FileSystem } from "../root/file-system.ts";

/** So much is written before the disk starts: some tenths of a second of a slow one. */
const STEP_BYTES = 32 * 1024 * 1024;

/**
 * Syncs a file while it grows, one step at a time, so that the sync at its end has little left. The
 * system itself starts to write only when gigabytes wait, and a client would wait for all of them.
 */
export class EarlySync {
  readonly #fileSystem: Pick<FileSystem, "fdatasync">;
  readonly #fd: number;
  #startedBytes: number;
  #running: Promise<void> | undefined;
  /**
   * Reported once by the system, which then counts the pages as written: the file is of no use after it.
   */
  #failure: { readonly error: unknown } | undefined;

  /** @param sizeBytes of the file now */
  constructor(
    fileSystem: Pick<FileSystem, "fdatasync">,
    fd: number,
    sizeBytes: number,
  ) {
    this.#fileSystem = fileSystem;
    this.#fd = fd;
    this.#startedBytes = sizeBytes;
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** Starts a sync in the background if enough was written since the last one, which must have ended. */
  grewTo(sizeBytes: number): void {
    if (this.#running !== undefined || this.#failure !== undefined) return;
    if (sizeBytes - this.#startedBytes < STEP_BYTES) return;
    this.#startedBytes = sizeBytes;
    this.#running = this.#sync();
  }

  /** Resolves when no sync runs; the file can then be closed. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** Waits for a running sync. @throws the error of the one that failed */
  async check(): Promise<void> {
    await this.#running;
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #sync(): Promise<void> {
    try {
      await this.#fileSystem.fdatasync(this.#fd);
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#running = undefined;
    }
  }
}
