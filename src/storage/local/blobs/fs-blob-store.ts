import { constants } from "node:fs";
import {
  type Digest,
  digestAlgorithm,
  type DigestAlgorithm,
} from "../../../oci/digest.ts";
import {
  type BackgroundHashes,
  createBackgroundHashes,
} from "./background-hash.ts";
import type {
  BlobReader,
  BlobStore,
  BlobVerdict,
  PartialBlob,
  PartialSource,
} from "../../blob-store.ts";
import { StorageError } from "../../blob-store.ts";
import type { ContentHash } from "../../content-hash.ts";
import { type DiskLayout, layoutFolders } from "../root/disk-layout.ts";
import {
  asStorageError,
  type FileStat,
  type FileSystem,
  nodeFileSystem,
  systemCode,
} from "../root/file-system.ts";
import { FsPartialBlob } from "./fs-partial-blob.ts";
import { hashStoredFile } from "./hash-stored-file.ts";
import { FileBlobReader, SharedFile } from "./shared-file.ts";
import {
  BACKGROUND_HASH_FROM_BYTES,
  InlineHash,
  ReadBackHash,
  type StoredHash,
} from "./stored-hash.ts";

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = constants;
/** A link is no blob, and a pipe in a blob's place must not block; both flags are 0 where a system lacks them. */
const CAREFULLY = constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** In a blob's place there is nothing, or something that is no file. */
const ABSENT = new Set(["ENOENT", "ENOTDIR", "ELOOP", "EISDIR", "ENXIO"]);
/** The disk has the file and does not return its bytes; any other failure says nothing of them. */
const UNREADABLE = new Set(["EIO", "EUCLEAN", "EBADMSG", "EOF"]);
/** A rename found a folder where the file should go. */
const OCCUPIED = new Set(["EISDIR", "ENOTEMPTY", "EEXIST", "ENOTDIR"]);

export interface FsBlobStoreOptions {
  /** Its folders are there. */
  readonly layout: DiskLayout;
  readonly fileSystem?: FileSystem;
  readonly hashes?: BackgroundHashes;
}

export function createFsBlobStore(options: FsBlobStoreOptions): BlobStore {
  return new FsBlobStore(
    options.layout,
    options.fileSystem ?? nodeFileSystem,
    options.hashes ?? createBackgroundHashes(),
  );
}

/** Blobs as files; see disk-layout.ts for the tree. */
class FsBlobStore implements BlobStore {
  readonly #layout: DiskLayout;
  readonly #fileSystem: FileSystem;
  readonly #hashes: BackgroundHashes;
  #lastTemporary = 0;

  constructor(
    layout: DiskLayout,
    fileSystem: FileSystem,
    hashes: BackgroundHashes,
  ) {
    this.#layout = layout;
    this.#fileSystem = fileSystem;
    this.#hashes = hashes;
  }

  async open(
    digest: Digest,
    sizeBytes: number,
  ): Promise<BlobReader | undefined> {
    const opened = await this.#openBlob(digest, sizeBytes);
    return opened === undefined
      ? undefined
      : new FileBlobReader(opened.file, {
          sizeBytes,
          writtenAtMs: opened.stat.modifiedAtMs,
        });
  }

  async read(digest: Digest, sizeBytes: number): Promise<Buffer | undefined> {
    const file = (await this.#openBlob(digest, sizeBytes))?.file;
    if (file === undefined) return undefined;
    try {
      // Not from the pool: the bytes may be kept, and would keep a pool's slab with them.
      const bytes = Buffer.allocUnsafeSlow(sizeBytes);
      if (sizeBytes > 0) await file.readFully(bytes, sizeBytes, 0);
      return bytes;
    } finally {
      await file.release();
    }
  }

  async verify(
    digest: Digest,
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<BlobVerdict | undefined> {
    const file = (await this.#openBlob(digest, sizeBytes))?.file;
    if (file === undefined) return undefined;
    try {
      const found = await hashStoredFile(file, {
        algorithm: digestAlgorithm(digest),
        sizeBytes,
        hashes: this.#hashes,
        signal,
      });
      return found === digest ? "right" : "wrong";
    } catch (error) {
      if (signal.aborted || !UNREADABLE.has(systemCode(error))) throw error;
      return "unreadable";
    } finally {
      await file.release();
    }
  }

  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const path = this.#temporaryFile("put");
    await this.#inFolders("put", async () => {
      try {
        await this.#writeFile(path, bytes);
        await this.#moveToBlobs(path, digest);
      } catch (error) {
        await this.#fileSystem.unlink(path).catch(() => undefined);
        throw error;
      }
    });
  }

  openPartial(
    digest: Digest,
    expectedBytes: number | undefined,
    source?: PartialSource,
  ): Promise<PartialBlob> {
    return this.#inFolders("open", async () => {
      const path = this.#layout.partialFile(digest, source?.upstream);
      if (source?.mayAdopt !== false) await this.#adopt(digest, path);
      const { file, sizeBytes } = await this.#openLeft(
        path,
        expectedBytes ?? Number.MAX_SAFE_INTEGER,
      );
      try {
        const hash = this.#hashOfPartial(
          digestAlgorithm(digest),
          file,
          sizeBytes,
          expectedBytes,
        );
        return new FsPartialBlob({
          fileSystem: this.#fileSystem,
          path,
          file,
          hash,
          leftBytes: sizeBytes,
          moveToBlobs: () => this.#moveToBlobs(path, digest),
        });
      } catch (error) {
        await file.release();
        throw error;
      }
    });
  }

  createHash(
    algorithm: DigestAlgorithm,
    expectedBytes: number | undefined,
  ): ContentHash {
    if (isSmall(expectedBytes)) return new InlineHash(algorithm);
    try {
      return this.#hashes.open(algorithm, undefined);
    } catch {
      // No thread to be had: the pull goes on all the same, only slower.
      return new InlineHash(algorithm);
    }
  }

  async remove(digest: Digest): Promise<void> {
    const path = this.#layout.blobFile(digest);
    await this.#during("unlink", async () => {
      const stat = await this.#statPath(path);
      if (stat === undefined) return;
      if (stat.isFile) await this.#fileSystem.unlink(path);
      else await this.#fileSystem.removeTree(path);
    });
  }

  async probe(): Promise<void> {
    const path = this.#temporaryFile("probe");
    await this.#inFolders("probe", async () => {
      try {
        await this.#writeFile(path, Buffer.from("probe"));
      } finally {
        await this.#fileSystem.unlink(path).catch(() => undefined);
      }
    });
  }

  close(): Promise<void> {
    return this.#hashes.close();
  }

  async #openBlob(
    digest: Digest,
    sizeBytes: number,
  ): Promise<{ file: SharedFile; stat: FileStat } | undefined> {
    let fd: number;
    try {
      fd = await this.#fileSystem.open(
        this.#layout.blobFile(digest),
        O_RDONLY | CAREFULLY,
      );
    } catch (error) {
      if (ABSENT.has(systemCode(error))) return undefined;
      throw asStorageError("open", error);
    }
    const file = new SharedFile(this.#fileSystem, fd);
    const stat = await this.#statOpened(file);
    if (stat.isFile && stat.sizeBytes === sizeBytes) return { file, stat };
    await file.release();
    return undefined;
  }

  /**
   * What stands published although the index does not serve it may be whole, or was cut by another
   * process: it is hashed again like any partial, and continued where it is too short.
   */
  async #adopt(digest: Digest, partialPath: string): Promise<void> {
    const blobPath = this.#layout.blobFile(digest);
    const stat = await this.#statPath(blobPath);
    if (stat?.isFile === true) {
      await this.#renameOver(blobPath, partialPath);
      return;
    }
    if (stat !== undefined) await this.#fileSystem.removeTree(blobPath);
    const unknownPath = this.#layout.partialFile(digest);
    if (
      unknownPath !== partialPath &&
      (await this.#statPath(partialPath)) === undefined &&
      (await this.#statPath(unknownPath))?.isFile === true
    ) {
      await this.#renameOver(unknownPath, partialPath);
    }
  }

  /** Opens what is left of a partial, or an empty one in place of what can't be one. */
  async #openLeft(
    path: string,
    limitBytes: number,
  ): Promise<{ file: SharedFile; sizeBytes: number }> {
    const stat = await this.#statPath(path);
    if (stat !== undefined && (!stat.isFile || stat.sizeBytes > limitBytes)) {
      // Never truncated: whoever still reads the file would lose bytes under his hands.
      await this.#fileSystem.removeTree(path);
    }
    const file = new SharedFile(
      this.#fileSystem,
      await this.#fileSystem.open(path, O_RDWR | O_CREAT | CAREFULLY),
    );
    const { sizeBytes } = await this.#statOpened(file);
    return { file, sizeBytes };
  }

  #hashOfPartial(
    algorithm: DigestAlgorithm,
    file: SharedFile,
    leftBytes: number,
    expectedBytes: number | undefined,
  ): StoredHash {
    if (leftBytes === 0 && isSmall(expectedBytes)) {
      return new ReadBackHash(algorithm, file);
    }
    const hash = this.#hashes.open(algorithm, file);
    if (leftBytes > 0) hash.addStored([], leftBytes);
    return hash;
  }

  /** Writes a new file in full and syncs it. */
  async #writeFile(path: string, bytes: Uint8Array): Promise<void> {
    const fileSystem = this.#fileSystem;
    const fd = await fileSystem.open(
      path,
      O_RDWR | O_CREAT | O_EXCL | CAREFULLY,
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

  /** The file's bytes are durable; when this resolves its name is too, else it is gone. */
  async #moveToBlobs(path: string, digest: Digest): Promise<void> {
    const blobPath = this.#layout.blobFile(digest);
    await this.#renameOver(path, blobPath);
    try {
      await syncFolder(
        this.#fileSystem,
        this.#layout.blobFolder(digestAlgorithm(digest)),
      );
    } catch (error) {
      await this.#fileSystem.unlink(blobPath).catch(() => undefined);
      throw error;
    }
  }

  /** What stands in the way is no file of ours, or is equal. */
  async #renameOver(from: string, to: string): Promise<void> {
    try {
      await this.#fileSystem.rename(from, to);
    } catch (error) {
      const code = systemCode(error);
      if (code === "ENOENT") await this.#makeFolders();
      else if (OCCUPIED.has(code)) await this.#fileSystem.removeTree(to);
      else throw error;
      await this.#fileSystem.rename(from, to);
    }
  }

  async #statOpened(file: SharedFile): Promise<FileStat> {
    try {
      return await this.#fileSystem.stat(file.fd);
    } catch (error) {
      await file.release();
      throw asStorageError("stat", error);
    }
  }

  async #statPath(path: string): Promise<FileStat | undefined> {
    try {
      return await this.#fileSystem.statPath(path);
    } catch (error) {
      if (ABSENT.has(systemCode(error))) return undefined;
      throw error;
    }
  }

  /** Somebody may empty the root behind us: its folders are made anew, once for each call. */
  #inFolders<T>(operation: string, work: () => Promise<T>): Promise<T> {
    return this.#during(operation, async () => {
      try {
        return await work();
      } catch (error) {
        if (systemCode(error) !== "ENOENT") throw error;
        await this.#makeFolders();
        return await work();
      }
    });
  }

  async #makeFolders(): Promise<void> {
    for (const folder of layoutFolders(this.#layout)) {
      await this.#fileSystem.makeFolder(folder);
    }
  }

  async #during<T>(operation: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw asStorageError(operation, error);
    }
  }

  #temporaryFile(purpose: string): string {
    this.#lastTemporary += 1;
    return this.#layout.temporaryFile(purpose, this.#lastTemporary);
  }
}

/** Makes names in a folder durable. */
export async function syncFolder(
  fileSystem: FileSystem,
  path: string,
): Promise<void> {
  const fd = await fileSystem.open(path, O_RDONLY | constants.O_DIRECTORY);
  try {
    await fileSystem.fsync(fd);
  } finally {
    await fileSystem.close(fd).catch(() => undefined);
  }
}

function isSmall(expectedBytes: number | undefined): boolean {
  return (
    expectedBytes !== undefined && expectedBytes < BACKGROUND_HASH_FROM_BYTES
  );
}
