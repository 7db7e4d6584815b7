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

  constructor(layout: DiskLayout, fileSystem: FileSystem) {
    this.#layout = layout;
    this.#fileSystem = fileSystem;
  }

  /** Makes room at once, for whoever retries in the same turn. @returns false when there was none to make */
  release(): boolean {
    try {
      unlinkSync(this.#layout.ballastFile);
      return true;
    } catch {
      return false;
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
      if (stat?.sizeBytes === BALLAST_BYTES) return;
      const space = await readDiskSpace(root);
      if (space === undefined || space.freeBytes < BALLAST_BYTES * ROOM_FACTOR)
        return;
      await this.#write(ballastFile);
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
