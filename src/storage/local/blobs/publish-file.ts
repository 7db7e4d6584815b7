import { type Digest, digestAlgorithm } from "../../../oci/digest.ts";
import type {
  BlobWriter,
  FillTarget,
  PublishedFile,
} from "../../blob-store.ts";
import { systemCode } from "../root/file-system.ts";
import type { BackgroundHashes } from "./background-hash.ts";
import type { BlobFiles, OpenedFile } from "./blob-files.ts";
import { hashStoredFile, isUnreadable } from "./hash-stored-file.ts";

interface PublishParts {
  readonly files: BlobFiles;
  readonly hashes: BackgroundHashes;
  readonly beginWrite: (target: FillTarget) => Promise<BlobWriter>;
}

interface ForeignFile {
  readonly digest: Digest;
  readonly path: string;
  readonly signal: AbortSignal;
  readonly onBytes: (bytes: number) => void;
}

type Unusable = Exclude<PublishedFile, { readonly sizeBytes: number }>;

/**
 * A second name can't be made here: another file system, a file of another user (Linux's
 * fs.protected_hardlinks), a file system without hard links, or a file with too many of them.
 */
const NOT_LINKABLE = new Set([
  "EXDEV",
  "EPERM",
  "EACCES",
  "EMLINK",
  "ENOSYS",
  "ENOTSUP",
  "EOPNOTSUPP",
]);
/** The file exists and this process may not read it. */
const DENIED = new Set(["EACCES", "EPERM"]);
const COPY_BYTES = 1024 * 1024;
/** Keeps the bytes of a copy apart from those of downloads; not the name of an upstream. */
const COPY_SOURCE = { upstream: "file:", mayAdopt: false };

/** Publishes a file outside of the root; see {@link BlobStore.publishFile}. */
export async function publishForeignFile(
  parts: PublishParts,
  file: ForeignFile,
): Promise<PublishedFile> {
  file.signal.throwIfAborted();
  try {
    const linked = await linkFile(parts, file);
    return linked === "not-linkable" ? await copyFile(parts, file) : linked;
  } catch (error) {
    // Not the error of the storage that it is wrapped in.
    file.signal.throwIfAborted();
    throw error;
  }
}

/**
 * Links the file to a name in the partial folder first, so that the file that is verified is the one
 * that is published, whatever the foreign folder has at the path meanwhile.
 */
function linkFile(
  parts: PublishParts,
  { digest, path, signal, onBytes }: ForeignFile,
): Promise<PublishedFile | "not-linkable"> {
  const { files, hashes } = parts;
  const { fileSystem } = files;
  const temporary = files.temporaryFile("link");
  return files.inFolders("link", async () => {
    try {
      await fileSystem.link(path, temporary);
    } catch (error) {
      if (NOT_LINKABLE.has(systemCode(error))) return "not-linkable";
      // If the path exists, it is the partial folder that does not.
      if ((await files.statPath(path)) === undefined) return { kind: "absent" };
      throw error;
    }
    try {
      const opened = await openForeign(files, temporary);
      if ("kind" in opened) return opened;
      const { file, stat } = opened;
      const { sizeBytes } = stat;
      try {
        const algorithm = digestAlgorithm(digest);
        const found = await reading(signal, () =>
          hashStoredFile(file, {
            algorithm,
            sizeBytes,
            hashes,
            signal,
            onBytes,
          }),
        );
        if (typeof found !== "string") return found;
        if (found !== digest) return { kind: "wrong", sizeBytes };
        // The other program may not have synced it.
        await fileSystem.fdatasync(file.fd);
        await files.moveToBlobs(temporary, digest);
        return { kind: "linked", sizeBytes };
      } finally {
        await file.release();
      }
    } finally {
      // A rename to another name of the same file does nothing, and the first name stays.
      await fileSystem.unlink(temporary).catch(() => undefined);
    }
  });
}

/** Copies the file; a copy that was interrupted continues, and the hash covers the bytes that it left. */
async function copyFile(
  { files, beginWrite }: PublishParts,
  { digest, path, signal, onBytes }: ForeignFile,
): Promise<PublishedFile> {
  const opened = await openForeign(files, path);
  if ("kind" in opened) return opened;
  const { file, stat } = opened;
  const { sizeBytes } = stat;
  try {
    const writer = await beginWrite({
      kind: "fill",
      digest,
      expectedBytes: sizeBytes,
      source: COPY_SOURCE,
    });
    let failure: PublishedFile | undefined;
    try {
      failure = await fillCopy(writer, opened, { signal, onBytes });
      if (failure === undefined && (await writer.hash.digest()) !== digest) {
        failure = { kind: "wrong", sizeBytes };
      }
    } catch (error) {
      if (signal.aborted) await writer.suspend();
      else await writer.abort();
      throw error;
    }
    if (failure !== undefined) {
      await writer.abort();
      return failure;
    }
    await writer.commit(digest);
    return { kind: "copied", sizeBytes };
  } finally {
    await file.release();
  }
}

/** @returns undefined if all bytes were appended */
async function fillCopy(
  writer: BlobWriter,
  { file, stat: { sizeBytes } }: OpenedFile,
  { signal, onBytes }: Pick<ForeignFile, "onBytes" | "signal">,
): Promise<Unusable | undefined> {
  while (writer.writtenBytes < sizeBytes) {
    signal.throwIfAborted();
    const position = writer.writtenBytes;
    const length = Math.min(COPY_BYTES, sizeBytes - position);
    const bytes = Buffer.allocUnsafeSlow(length);
    const read = await reading(signal, () =>
      file.readFully(bytes, length, position),
    );
    if (typeof read !== "number") return read;
    await writer.append([bytes]);
    onBytes(length);
  }
  return undefined;
}

async function openForeign(
  files: BlobFiles,
  path: string,
): Promise<OpenedFile | Unusable> {
  try {
    return (await files.openFile(path)) ?? { kind: "absent" };
  } catch (error) {
    const code = systemCode(error);
    if (!DENIED.has(code) && !isUnreadable(error)) throw error;
    return { kind: "unreadable", code };
  }
}

/** Runs a read of the foreign file. @returns `unreadable` if the disk does not return the bytes */
async function reading<T>(
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T | Unusable> {
  try {
    return await work();
  } catch (error) {
    if (signal.aborted || !isUnreadable(error)) throw error;
    return { kind: "unreadable", code: systemCode(error) };
  }
}
