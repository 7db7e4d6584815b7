import {
  type Digest,
  DIGEST_ALGORITHMS,
  digestAlgorithm,
  type DigestAlgorithm,
  parseDigest,
} from "../../../oci/digest.ts";
import type {
  BlobReader,
  BlobStore,
  BlobVerdict,
  BlobWriter,
  PublishedFile,
  StoredBlob,
  UploadId,
  WriteTarget,
} from "../../blob-store.ts";
import type { ContentHash } from "../../content-hash.ts";
import { InlineHash } from "../../inline-hash.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import {
  asStorageError,
  type FileSystem,
  nodeFileSystem,
  systemCode,
} from "../root/file-system.ts";
import {
  type BackgroundHashes,
  createBackgroundHashes,
} from "./background-hash.ts";
import { BlobFiles, type OpenedFile } from "./blob-files.ts";
import { FsBlobWriter } from "./fs-blob-writer.ts";
import { hashStoredFile, isUnreadable } from "./hash-stored-file.ts";
import { publishForeignFile } from "./publish-file.ts";
import { FileBlobReader } from "./shared-file.ts";
import {
  BACKGROUND_HASH_FROM_BYTES,
  ReadBackHash,
  type StoredHash,
} from "./stored-hash.ts";

export interface FsBlobStoreOptions {
  /** Its folders exist. */
  readonly layout: DiskLayout;
  readonly fileSystem?: FileSystem;
  readonly hashes?: BackgroundHashes;
}

export function createFsBlobStore(options: FsBlobStoreOptions): BlobStore {
  return new FsBlobStore(
    new BlobFiles(options.layout, options.fileSystem ?? nodeFileSystem),
    options.hashes ?? createBackgroundHashes(),
  );
}

/** Blobs as files; see disk-layout.ts for the tree. */
class FsBlobStore implements BlobStore {
  readonly #files: BlobFiles;
  readonly #hashes: BackgroundHashes;

  constructor(files: BlobFiles, hashes: BackgroundHashes) {
    this.#files = files;
    this.#hashes = hashes;
  }

  async open(
    digest: Digest,
    sizeBytes: number,
  ): Promise<BlobReader | undefined> {
    const opened = await this.#files.openBlob(digest, sizeBytes);
    return opened === undefined
      ? undefined
      : new FileBlobReader(opened.file, {
          sizeBytes,
          writtenAtMs: opened.stat.modifiedAtMs,
        });
  }

  async read(digest: Digest, sizeBytes: number): Promise<Buffer | undefined> {
    const file = (await this.#files.openBlob(digest, sizeBytes))?.file;
    if (file === undefined) return undefined;
    try {
      // Not from the pool: the caller may keep the bytes, and would keep a slab of the pool with them.
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
    const file = (await this.#files.openBlob(digest, sizeBytes))?.file;
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
      if (signal.aborted || !isUnreadable(error)) throw error;
      return "unreadable";
    } finally {
      await file.release();
    }
  }

  async put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const files = this.#files;
    const path = files.temporaryFile("put");
    await files.inFolders("put", async () => {
      try {
        await files.writeFile(path, bytes);
        await files.moveToBlobs(path, digest);
      } catch (error) {
        await files.fileSystem.unlink(path).catch(() => undefined);
        throw error;
      }
    });
  }

  beginWrite(target: WriteTarget): Promise<BlobWriter> {
    const { layout } = this.#files;
    return this.#files.inFolders("open", async () => {
      if (target.kind === "upload") {
        const { id, algorithm } = target;
        return this.#openWriter(target, algorithm, layout.uploadFile(id));
      }
      const { digest, source } = target;
      const path = layout.partialFile(digest, source?.upstream);
      if (source?.mayAdopt !== false) await this.#adopt(digest, path);
      return this.#openWriter(target, digestAlgorithm(digest), path);
    });
  }

  publishFile(
    digest: Digest,
    path: string,
    signal: AbortSignal,
    onBytes: (bytes: number) => void = () => undefined,
  ): Promise<PublishedFile> {
    return publishForeignFile(
      {
        files: this.#files,
        hashes: this.#hashes,
        beginWrite: (target) => this.beginWrite(target),
      },
      { digest, path, signal, onBytes },
    );
  }

  async readUploadSize(id: UploadId): Promise<number> {
    const files = this.#files;
    try {
      const stat = await files.statPath(files.layout.uploadFile(id));
      return stat?.isFile === true ? stat.sizeBytes : 0;
    } catch (error) {
      throw asStorageError("stat", error);
    }
  }

  createHash(
    algorithm: DigestAlgorithm,
    expectedBytes: number | undefined,
  ): ContentHash {
    if (isSmall(expectedBytes)) return new InlineHash(algorithm);
    try {
      return this.#hashes.open(algorithm, undefined);
    } catch {
      // No thread can be started: hashing on this one only slows the pull down.
      return new InlineHash(algorithm);
    }
  }

  async list(
    visit: (page: readonly StoredBlob[]) => Promise<void> | void,
  ): Promise<void> {
    const { layout, fileSystem } = this.#files;
    for (const algorithm of DIGEST_ALGORITHMS) {
      let visitError: unknown;
      try {
        await fileSystem.eachName(
          layout.blobFolder(algorithm),
          async (names) => {
            const page = await this.#statNames(algorithm, names);
            try {
              await visit(page);
            } catch (error) {
              visitError = error;
              throw error;
            }
          },
        );
      } catch (error) {
        if (visitError !== undefined) throw visitError;
        if (systemCode(error) !== "ENOENT") throw asStorageError("list", error);
      }
    }
  }

  async remove(digest: Digest): Promise<void> {
    try {
      await this.#files.removeBlob(digest);
    } catch (error) {
      throw asStorageError("unlink", error);
    }
  }

  async probe(): Promise<void> {
    const files = this.#files;
    const path = files.temporaryFile("probe");
    await files.inFolders("probe", async () => {
      try {
        await files.writeFile(path, Buffer.from("probe"));
      } finally {
        await files.fileSystem.unlink(path).catch(() => undefined);
      }
    });
  }

  close(): Promise<void> {
    return this.#hashes.close();
  }

  async #openWriter(
    { kind, expectedBytes }: WriteTarget,
    algorithm: DigestAlgorithm,
    path: string,
  ): Promise<BlobWriter> {
    const files = this.#files;
    const opened = await files.openPartial(
      path,
      expectedBytes ?? Number.MAX_SAFE_INTEGER,
    );
    const { file, stat } = opened;
    try {
      return new FsBlobWriter({
        fileSystem: files.fileSystem,
        path,
        file,
        hash: this.#hashOfPartial(opened, algorithm, expectedBytes),
        leftBytes: stat.sizeBytes,
        isAwaited: kind === "upload",
        moveToBlobs: (digest) => files.moveToBlobs(path, digest),
      });
    } catch (error) {
      await file.release();
      throw error;
    }
  }

  #hashOfPartial(
    { file, stat }: OpenedFile,
    algorithm: DigestAlgorithm,
    expectedBytes: number | undefined,
  ): StoredHash {
    const leftBytes = stat.sizeBytes;
    if (leftBytes === 0 && isSmall(expectedBytes)) {
      return new ReadBackHash(algorithm, file);
    }
    const hash = this.#hashes.open(algorithm, file);
    if (leftBytes > 0) hash.addStored([], leftBytes);
    return hash;
  }

  /**
   * Turns a published blob that the index does not serve into a partial. It may be complete, or
   * truncated by another process: it is hashed again like any partial, and continued if too short.
   */
  async #adopt(digest: Digest, partialPath: string): Promise<void> {
    const files = this.#files;
    const blobPath = files.layout.blobFile(digest);
    const stat = await files.statPath(blobPath);
    if (stat?.isFile === true) {
      await files.renameOver(blobPath, partialPath);
      return;
    }
    if (stat !== undefined) await files.fileSystem.removeTree(blobPath);
    const unknownPath = files.layout.partialFile(digest);
    if (
      unknownPath !== partialPath &&
      (await files.statPath(partialPath)) === undefined &&
      (await files.statPath(unknownPath))?.isFile === true
    ) {
      await files.renameOver(unknownPath, partialPath);
    }
  }

  /** Names that are not digests, and entries that are not files, are left out. */
  async #statNames(
    algorithm: DigestAlgorithm,
    names: readonly string[],
  ): Promise<readonly StoredBlob[]> {
    const page: StoredBlob[] = [];
    for (const name of names) {
      const digest = parseDigest(`${algorithm}:${name}`);
      if (digest === undefined) continue;
      const stat = await this.#files.statPath(
        this.#files.layout.blobFile(digest),
      );
      if (stat?.isFile === true) {
        page.push({ digest, sizeBytes: stat.sizeBytes });
      }
    }
    return page;
  }
}

function isSmall(expectedBytes: number | undefined): boolean {
  return (
    expectedBytes !== undefined && expectedBytes < BACKGROUND_HASH_FROM_BYTES
  );
}
