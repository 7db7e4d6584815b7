import { constants } from "node:fs";
import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import {
  createDigestHash,
  type Digest,
  digestAlgorithm,
  digestSoFar,
} from "../../../oci/digest.ts";
import { MAX_MANIFEST_BYTES, parseManifest } from "../../../oci/manifest.ts";
import type { FileSystem } from "../root/file-system.ts";
import type { BlobRecord } from "../../blob-index.ts";
import { SharedFile } from "./shared-file.ts";

const OPEN_FLAGS =
  constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const READ_BYTES = 256 * 1024;
/** The largest `maxManifestSize` of a hosted registry. */
export const MAX_HOSTED_MANIFEST_BYTES = 64 * 1024 * 1024;

/** Waits as long as reading so many bytes should take. */
export type Pace = (bytes: number) => Promise<void>;

export interface FileContent {
  /** The digest of the bytes found. */
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** All bytes, if the file is small enough to be a manifest. */
  readonly bytes: Buffer | undefined;
}

/**
 * Reads a file in blobs/ completely and hashes it with the algorithm in its name.
 *
 * @throws the system's errors; the signal's reason
 */
export async function readBlobFile(
  fileSystem: FileSystem,
  path: string,
  digest: Digest,
  options: {
    readonly pace?: Pace;
    readonly signal?: AbortSignal;
    /** Larger files are not kept in memory. */
    readonly maxWholeBytes?: number;
  } = {},
): Promise<FileContent> {
  const file = new SharedFile(
    fileSystem,
    await fileSystem.open(path, OPEN_FLAGS),
  );
  try {
    const { sizeBytes } = await fileSystem.stat(file.fd);
    const algorithm = digestAlgorithm(digest);
    const hash = createDigestHash(algorithm);
    const isSmall = sizeBytes <= (options.maxWholeBytes ?? MAX_MANIFEST_BYTES);
    const whole = Buffer.allocUnsafeSlow(isSmall ? sizeBytes : READ_BYTES);
    for (let position = 0; position < sizeBytes;) {
      options.signal?.throwIfAborted();
      const length = Math.min(READ_BYTES, sizeBytes - position);
      const target = isSmall
        ? whole.subarray(position, position + length)
        : whole.subarray(0, length);
      await file.readFully(target, length, position);
      hash.update(target);
      position += length;
      await options.pace?.(length);
    }
    return {
      digest: digestSoFar(algorithm, hash),
      sizeBytes,
      bytes: isSmall ? whole : undefined,
    };
  } finally {
    await file.release();
  }
}

export interface ManifestContent {
  readonly mediaType: string;
  readonly children: readonly ChildDescriptor[];
  readonly subject: Digest | undefined;
}

/**
 * Parses the content of a file as a manifest.
 *
 * @param mediaType the type it was published with; if absent, the file must contain its own type
 * @returns undefined if it is not a manifest
 */
export function readManifestContent(
  bytes: Buffer | undefined,
  mediaType: string | undefined,
): ManifestContent | undefined {
  // Most blobs are archives: their first byte rules them out.
  if (bytes === undefined || bytes[0] !== OPENING_BRACE) return undefined;
  const parsed = parseManifest(bytes, mediaType);
  if (!parsed.ok || parsed.kind === "schema1") return undefined;
  return parsed;
}

const OPENING_BRACE = 0x7b;

/** Returns the index record of a found file whose bytes match its name. */
export function recordOf(
  digest: Digest,
  sizeBytes: number,
  storedAtMs: number,
  manifest: ManifestContent | undefined,
): BlobRecord {
  return {
    digest,
    sizeBytes,
    storedAtMs,
    ...(manifest === undefined
      ? {}
      : {
          manifest: {
            mediaType: manifest.mediaType,
            children: manifest.children,
            subject: manifest.subject,
          },
        }),
  };
}
