import { constants, unlinkSync } from "node:fs";
import { readDiskSpace } from "./disk-space.ts";
import type { DiskLayout } from "./disk-layout.ts";
import type { FileSystem } from "./file-system.ts";

/** Some hundred pages of the index: the rows of several images can go before there is room again. */
const BALLAST_BYTES = 1024 * 1024;
/** It is laid in again when the disk has so many times its size. */
const ROOM_FACTOR = 16;
const { O_RDWR, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;

/**
 * A file that is there to be given up: on a disk without a free byte SQLite can't even delete,
 * because its log grows first.
 */
export class Ballast {
  readonly #layout: DiskLayout;
  readonly #fileSystem: FileSystem;
  readonly #isRootHere: () => boolean;
  #isGivenUp = false;

  constructor(
    layout: DiskLayout,
    fileSystem: FileSystem,
    isRootHere: () => boolean = () => true,
  ) {
    this.#layout = layout;
    this.#fileSystem = fileSystem;
    this.#isRootHere = isRootHere;
  }

  /** The disk ran full, and has not come back to much room since. */
  get isGivenUp(): boolean {
    return this.#isGivenUp;
  }

  /** Makes room at once, for whoever retries in the same turn; it may be gone already. */
  release(): void {
    if (!this.#isRootHere()) return;
    try {
      unlinkSync(this.#layout.ballastFile);
      this.#isGivenUp = true;
    } catch {
      // It is gone, or can't go: the retry fails as the first try did.
    }
  }

  /** Lays it in where it is missing and there is room. Never rejects. */
  async restore(): Promise<void> {
    const { ballastFile, root } = this.#layout;
    const fileSystem = this.#fileSystem;
    try {
      const stat = await fileSystem
        .statPath(ballastFile)
        .catch(() => undefined);
      if (stat?.sizeBytes === BALLAST_BYTES) {
        this.#isGivenUp = false;
        return;
      }
      const space = await readDiskSpace(root);
      if (space === undefined || space.freeBytes < BALLAST_BYTES * ROOM_FACTOR)
        return;
      await this.#write(ballastFile);
      this.#isGivenUp = false;
    } catch {
      await fileSystem.unlink(ballastFile).catch(() => undefined);
    }
  }

  async #write(path: string): Promise<void> {
    const fileSystem = this.#fileSystem;
    const fd = await fileSystem.open(
      path,
      O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW,
    );
    try {
      // Real bytes: a hole takes no room that could be given back.
      const bytes = Buffer.alloc(BALLAST_BYTES, 0xb5);
      for (let done = 0; done < bytes.length;) {
        done += await fileSystem.writev(fd, [bytes.subarray(done)], done);
      }
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
  }
}
