import { constants, unlinkSync } from "node:fs";
import { readDiskSpace } from "./disk-space.ts";
import type { DiskLayout } from "./disk-layout.ts";
import type { FileSystem } from "./file-system.ts";

/** Some hundred pages of the index, enough to delete the rows of several images before other room is free. */
const BALLAST_BYTES = 1024 * 1024;
/** The reserve is written again when the disk has this many times its size free. */
const ROOM_FACTOR = 16;
const { O_RDWR, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;

/**
 * A file that reserves disk space for the index. On a disk without a free byte SQLite can't even
 * delete rows, because its log grows first; removing this file makes that possible.
 */
export class Ballast {
  readonly #layout: DiskLayout;
  readonly #fileSystem: FileSystem;
  readonly #isRootHere: () => boolean;
  #isReleased = false;

  constructor(
    layout: DiskLayout,
    fileSystem: FileSystem,
    isRootHere: () => boolean = () => true,
  ) {
    this.#layout = layout;
    this.#fileSystem = fileSystem;
    this.#isRootHere = isRootHere;
  }

  /** Whether the disk ran full and has not had enough free space since. */
  get isReleased(): boolean {
    return this.#isReleased;
  }

  /** Frees the space synchronously, so that the caller can retry its write in the same turn. */
  release(): void {
    if (!this.#isRootHere()) return;
    try {
      unlinkSync(this.#layout.ballastFile);
      this.#isReleased = true;
    } catch {
      // Absent already, or not removable: the retry fails like the first attempt.
    }
  }

  /** Writes the file if it is absent and the disk has room. Never rejects. */
  async restore(): Promise<void> {
    const { ballastFile, root } = this.#layout;
    const fileSystem = this.#fileSystem;
    try {
      const stat = await fileSystem
        .statPath(ballastFile)
        .catch(() => undefined);
      if (stat?.sizeBytes === BALLAST_BYTES) {
        this.#isReleased = false;
        return;
      }
      const space = await readDiskSpace(root);
      if (space === undefined || space.freeBytes < BALLAST_BYTES * ROOM_FACTOR)
        return;
      await this.#write(ballastFile);
      this.#isReleased = false;
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
      // Real bytes: a sparse file would reserve nothing.
      const bytes = Buffer.alloc(BALLAST_BYTES, 0xb5);
      for (let done = 0; done < bytes.length;) {
        done += await fileSystem.writev(fd, [bytes.subarray(done)], done);
      }
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
  }
}
