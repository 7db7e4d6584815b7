import { constants } from "node:fs";
import { type Digest, digestAlgorithm } from "../../../oci/digest.ts";
import { StorageError } from "../../blob-store.ts";
import { type DiskLayout, layoutFolders } from "../root/disk-layout.ts";
import {
  asStorageError,
  type FileStat,
  type FileSystem,
  systemCode,
} from "../root/file-system.ts";
import { SharedFile } from "./shared-file.ts";

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = constants;
/** A link is not a blob, and a pipe in a blob's place must not block; both flags are 0 on systems without them. */
const OPEN_FLAGS = constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The path of a blob holds nothing, or something that is not a file. */
const ABSENT = new Set(["ENOENT", "ENOTDIR", "ELOOP", "EISDIR", "ENXIO"]);
/** A rename found a folder in place of the target file. */
const OCCUPIED = new Set(["EISDIR", "ENOTEMPTY", "EEXIST", "ENOTDIR"]);

export interface OpenedFile {
  readonly file: SharedFile;
  readonly stat: FileStat;
}

/** The steps on files that publishing and opening blobs consist of. */
export class BlobFiles {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  #lastTemporary = 0;

  constructor(layout: DiskLayout, fileSystem: FileSystem) {
    this.layout = layout;
    this.fileSystem = fileSystem;
  }

  /**
   * @returns undefined if the blob is absent or of another size
   * @throws StorageError
   */
  async openBlob(
    digest: Digest,
    sizeBytes: number,
  ): Promise<OpenedFile | undefined> {
    const opened = await this.openFile(this.layout.blobFile(digest));
    if (opened === undefined || opened.stat.sizeBytes === sizeBytes) {
      return opened;
    }
    await opened.file.release();
    return undefined;
  }

  /**
   * Opens a file for reading.
   *
   * @returns undefined if the path has nothing, or something that is not a file
   * @throws StorageError
   */
  async openFile(path: string): Promise<OpenedFile | undefined> {
    let fd: number;
    try {
      fd = await this.fileSystem.open(path, O_RDONLY | OPEN_FLAGS);
    } catch (error) {
      if (ABSENT.has(systemCode(error))) return undefined;
      throw asStorageError("open", error);
    }
    const opened = await this.#withStat(fd);
    if (opened.stat.isFile) return opened;
    await opened.file.release();
    return undefined;
  }

  /**
   * Opens the file of a partial, which may hold bytes of an earlier write. A longer file, one that has
   * another name too, or another kind of entry is replaced by an empty one.
   */
  async openPartial(path: string, limitBytes: number): Promise<OpenedFile> {
    const stat = await this.statPath(path);
    if (
      stat !== undefined &&
      (!stat.isFile || stat.sizeBytes > limitBytes || stat.linkCount > 1)
    ) {
      // Truncating would take bytes from readers that still have the file open, and a write would
      // change the file of another program that it was linked from.
      await this.fileSystem.removeTree(path);
    }
    return this.#withStat(
      await this.fileSystem.open(path, O_RDWR | O_CREAT | OPEN_FLAGS),
    );
  }

  /** Writes a new file completely and syncs it. */
  async writeFile(path: string, bytes: Uint8Array): Promise<void> {
    const { fileSystem } = this;
    const fd = await fileSystem.open(
      path,
      O_RDWR | O_CREAT | O_EXCL | OPEN_FLAGS,
    );
    try {
      let position = 0;
      while (position < bytes.length) {
        const written = await fileSystem.writev(
          fd,
          [bytes.subarray(position)],
          position,
        );
        if (written === 0) throw new StorageError("write", "EIO");
        position += written;
      }
      await fileSystem.fdatasync(fd);
    } finally {
      await fileSystem.close(fd).catch(() => undefined);
    }
  }

  /** Gives a synced file its digest as a name. If that name can't be made durable, it is removed again. */
  async moveToBlobs(path: string, digest: Digest): Promise<void> {
    const blobPath = this.layout.blobFile(digest);
    await this.renameOver(path, blobPath);
    try {
      await syncFolder(
        this.fileSystem,
        this.layout.blobFolder(digestAlgorithm(digest)),
      );
    } catch (error) {
      await this.fileSystem.unlink(blobPath).catch(() => undefined);
      throw error;
    }
  }

  /** Renames a file, replacing a foreign folder or an equal blob at the new name. */
  async renameOver(from: string, to: string): Promise<void> {
    try {
      await this.fileSystem.rename(from, to);
    } catch (error) {
      const code = systemCode(error);
      if (code === "ENOENT") await this.#makeFolders();
      else if (OCCUPIED.has(code)) await this.fileSystem.removeTree(to);
      else throw error;
      await this.fileSystem.rename(from, to);
    }
  }

  async removeBlob(digest: Digest): Promise<void> {
    const path = this.layout.blobFile(digest);
    const stat = await this.statPath(path);
    if (stat === undefined) return;
    if (stat.isFile) await this.fileSystem.unlink(path);
    else await this.fileSystem.removeTree(path);
  }

  /** @returns undefined if the path has no entry */
  async statPath(path: string): Promise<FileStat | undefined> {
    try {
      return await this.fileSystem.statPath(path);
    } catch (error) {
      if (ABSENT.has(systemCode(error))) return undefined;
      throw error;
    }
  }

  /**
   * Runs `work`. If it finds a folder of the root missing, because another program emptied the root,
   * creates all folders and runs it again, once.
   *
   * @throws StorageError
   */
  async inFolders<T>(operation: string, work: () => Promise<T>): Promise<T> {
    try {
      try {
        return await work();
      } catch (error) {
        if (systemCode(error) !== "ENOENT") throw error;
        await this.#makeFolders();
        return await work();
      }
    } catch (error) {
      throw asStorageError(operation, error);
    }
  }

  temporaryFile(purpose: string): string {
    this.#lastTemporary += 1;
    return this.layout.temporaryFile(purpose, this.#lastTemporary);
  }

  async #withStat(fd: number): Promise<OpenedFile> {
    const file = new SharedFile(this.fileSystem, fd);
    try {
      return { file, stat: await this.fileSystem.stat(fd) };
    } catch (error) {
      await file.release();
      throw asStorageError("stat", error);
    }
  }

  async #makeFolders(): Promise<void> {
    for (const folder of layoutFolders(this.layout)) {
      await this.fileSystem.makeFolder(folder);
    }
  }
}

/** Makes the names in a folder durable. */
export async function syncFolder(
  fileSystem: Pick<FileSystem, "open" | "close" | "fsync">,
  path: string,
): Promise<void> {
  const fd = await fileSystem.open(path, O_RDONLY | constants.O_DIRECTORY);
  try {
    await fileSystem.fsync(fd);
  } finally {
    await fileSystem.close(fd).catch(() => undefined);
  }
}
