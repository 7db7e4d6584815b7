import { constants } from "node:fs";
import { lstat, open, opendir, realpath } from "node:fs/promises";
import { join, relative } from "node:path";
import {
  type Digest,
  digestAlgorithm,
  digestHex,
  digestOf,
  parseDigest,
} from "../../oci/digest.ts";
import {
  MAX_REPOSITORY_NAME_LENGTH,
  parseRepositoryName,
  parseTag,
  type RepositoryName,
} from "../../oci/reference.ts";
import { messageOf } from "../../telemetry/error-record.ts";
import type {
  FolderBlob,
  FolderManifest,
  FolderTag,
  ProblemKind,
  TakeoverProblem,
} from "./takeover.ts";

/*
 * The folder of Distribution's filesystem driver, which docker-registry and the image registry:2 use:
 *
 * docker/registry/v2/
 *   blobs/<algorithm>/<2 hex>/<hex>/data       blobs and manifests
 *   repositories/<name>/                       components that begin with `_` are not part of a name
 *     _layers/<algorithm>/<hex>/link           a blob of the repository; the text is its digest
 *     _manifests/revisions/<algorithm>/<hex>/link   a manifest; a deletion removes the link only
 *     _manifests/tags/<tag>/current/link       the digest that the tag has
 *     _manifests/tags/<tag>/index/…            digests that it had
 *     _uploads/                                bytes of pushes that did not end
 * scheduler-state.json                         of a proxy: when content expires; ignored
 *
 * @see https://github.com/distribution/distribution/blob/v2.8.3/registry/storage/paths.go
 */

/** Paths of the tree below the folder that the operator names. */
const ROOTS = ["docker/registry/v2", "registry/v2", "v2", ""] as const;
/** Longer than the digest of any algorithm. */
const MAX_LINK_BYTES = 256;
/** Bounds the memory that one repository takes. */
const MAX_LINKS = 1_000_000;
const OPEN_FLAGS =
  constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const ABSENT = new Set(["ENOENT", "ENOTDIR", "ELOOP", "ENXIO", "EISDIR"]);

export type OnProblem = (problem: TakeoverProblem) => void;

/** The links of one repository. */
export interface FolderRepository {
  readonly name: RepositoryName;
  readonly tags: readonly FolderTag[];
  readonly manifests: ReadonlySet<Digest>;
  readonly blobs: ReadonlySet<Digest>;
}

/** A repository that is too large. */
export class FolderLimitError extends Error {}

interface FolderEntry {
  readonly name: string;
  readonly isFolder: boolean;
}

/** The storage folder of a Distribution registry, which is only read. */
export class DistributionFolder {
  /** The folder that has `blobs` and `repositories`; absolute. */
  readonly path: string;
  readonly #onProblem: OnProblem;
  readonly #maxLinks: number;

  constructor(path: string, onProblem: OnProblem, maxLinks = MAX_LINKS) {
    this.path = path;
    this.#onProblem = onProblem;
    this.#maxLinks = maxLinks;
  }

  blobPath(digest: Digest): string {
    const hex = digestHex(digest);
    const algorithm = digestAlgorithm(digest);
    return join(this.path, "blobs", algorithm, hex.slice(0, 2), hex, "data");
  }

  /** Returns the path of a blob below the folder, as messages name it. */
  relativePath(digest: Digest): string {
    return relative(this.path, this.blobPath(digest));
  }

  /** Returns the file of a blob; undefined if the folder has none. @throws the system's errors */
  async findBlob(digest: Digest): Promise<FolderBlob | undefined> {
    const path = this.blobPath(digest);
    const stats = await ifPresent(lstat(path));
    return stats?.isFile() === true
      ? { digest, path, sizeBytes: stats.size, userId: stats.uid }
      : undefined;
  }

  /** Reads a manifest and compares it with its digest. */
  async readManifest(
    digest: Digest,
    maxBytes: number,
  ): Promise<
    FolderManifest | { readonly problem: ProblemKind; readonly message: string }
  > {
    let found: SmallFile | "too-large" | undefined;
    const path = this.blobPath(digest);
    try {
      found = await readSmallFile(path, maxBytes);
    } catch (error) {
      return { problem: "damaged", message: messageOf(error) };
    }
    if (found === undefined) {
      return { problem: "missing", message: "its bytes are not in blobs/" };
    }
    if (found === "too-large") {
      const message = `got a manifest larger than ${maxBytes} bytes; expected a smaller one`;
      return { problem: "unknown", message };
    }
    const { bytes, userId } = found;
    return digestOf(bytes, digestAlgorithm(digest)) === digest
      ? { digest, path, sizeBytes: bytes.length, userId, bytes }
      : { problem: "damaged", message: "its bytes have another digest" };
  }

  /** Walks over the names of all repositories. @throws the system's errors */
  async *repositories(): AsyncGenerator<RepositoryName> {
    const waiting = [""];
    for (;;) {
      const name = waiting.pop();
      if (name === undefined) return;
      const below: string[] = [];
      let isRepository = false;
      for await (const entry of this.#entries(`repositories/${name}`)) {
        if (entry.name.startsWith("_")) {
          isRepository ||=
            entry.name === "_manifests" || entry.name === "_layers";
          continue;
        }
        const path = name === "" ? entry.name : `${name}/${entry.name}`;
        if (!entry.isFolder) {
          this.#foreign(`repositories/${path}`, "expected a folder");
        } else if (parseRepositoryName(path) === undefined) {
          const message = `expected a repository's name of at most ${MAX_REPOSITORY_NAME_LENGTH} characters`;
          this.#foreign(`repositories/${path}`, message);
        } else {
          below.push(path);
        }
      }
      waiting.push(...below.sort().toReversed());
      const parsed = parseRepositoryName(name);
      if (isRepository && parsed !== undefined) yield parsed;
    }
  }

  /** Counts the links of all repositories to blobs and manifests, without reading them. */
  async countLinks(): Promise<number> {
    let count = 0;
    for await (const name of this.repositories()) {
      for (const list of ["_layers", "_manifests/revisions"]) {
        const path = `repositories/${name}/${list}`;
        for await (const algorithm of this.#entries(path)) {
          const links = this.#entries(`${path}/${algorithm.name}`);
          for await (const link of links) count += link.isFolder ? 1 : 0;
        }
      }
    }
    return count;
  }

  /** Reads all links of a repository. @throws FolderLimitError */
  async readRepository(name: RepositoryName): Promise<FolderRepository> {
    const base = `repositories/${name}`;
    const blobs = await this.#digests(`${base}/_layers`);
    const manifests = await this.#digests(`${base}/_manifests/revisions`);
    const tags: FolderTag[] = [];
    for await (const entry of this.#entries(`${base}/_manifests/tags`)) {
      const path = `${base}/_manifests/tags/${entry.name}`;
      const tag = parseTag(entry.name);
      if (tag === undefined || !entry.isFolder) {
        this.#foreign(path, "expected the folder of a tag");
        continue;
      }
      this.#checkCount(tags.length);
      const link = await this.#readLink(`${path}/current/link`);
      if (typeof link === "object") tags.push({ tag, ...link });
      else if (link === "absent") {
        const message = "the tag has no manifest";
        this.#onProblem({ kind: "missing", name: `${name}:${tag}`, message });
      }
    }
    tags.sort((a, b) => (a.tag < b.tag ? -1 : 1));
    return { name, tags, manifests, blobs };
  }

  /** Reads links whose folders are named by digest: those without a link were deleted. */
  async #digests(path: string): Promise<ReadonlySet<Digest>> {
    const found: Digest[] = [];
    for await (const algorithm of this.#entries(path)) {
      const below = `${path}/${algorithm.name}`;
      for await (const entry of this.#entries(below)) {
        const digest = parseDigest(`${algorithm.name}:${entry.name}`);
        if (digest === undefined || !entry.isFolder) {
          this.#foreign(`${below}/${entry.name}`, "expected a digest");
          continue;
        }
        this.#checkCount(found.length);
        const link = await this.#readLink(`${below}/${entry.name}/link`);
        if (typeof link !== "object") continue;
        if (link.digest === digest) found.push(digest);
        else this.#damagedLink(`${below}/${entry.name}/link`);
      }
    }
    return new Set(found.sort());
  }

  /** @returns `absent` if there is no link; `damaged`, after it was reported, if it has no digest */
  async #readLink(
    path: string,
  ): Promise<
    | { readonly digest: Digest; readonly writtenAtMs: number }
    | "absent"
    | "damaged"
  > {
    try {
      const found = await readSmallFile(join(this.path, path), MAX_LINK_BYTES);
      if (found === undefined) return "absent";
      const digest =
        found === "too-large"
          ? undefined
          : parseDigest(found.bytes.toString().trim());
      if (digest !== undefined && found !== "too-large") {
        return { digest, writtenAtMs: found.modifiedAtMs };
      }
    } catch (error) {
      const message = messageOf(error);
      this.#onProblem({ kind: "damaged", name: printable(path), message });
      return "damaged";
    }
    this.#damagedLink(path);
    return "damaged";
  }

  /**
   * Lists a folder; one that is absent has no entries, and one that cannot be read is reported. A
   * symbolic link is not a folder.
   */
  async *#entries(path: string): AsyncGenerator<FolderEntry> {
    const absolute = join(this.path, path);
    try {
      const stats = await ifPresent(lstat(absolute));
      if (stats === undefined) return;
      if (!stats.isDirectory()) {
        this.#foreign(path, "expected a folder");
        return;
      }
      for await (const entry of await opendir(absolute)) {
        yield {
          name: entry.name,
          // Some file systems do not report the kind of an entry.
          isFolder:
            entry.isDirectory() ||
            (!entry.isFile() && (await isFolder(join(absolute, entry.name)))),
        };
      }
    } catch (error) {
      if (!isSystemError(error)) throw error;
      const message = messageOf(error);
      this.#onProblem({ kind: "damaged", name: printable(path), message });
    }
  }

  #checkCount(count: number): void {
    if (count >= this.#maxLinks) {
      throw new FolderLimitError(
        `got more than ${this.#maxLinks} links in one repository; expected fewer`,
      );
    }
  }

  #foreign(path: string, message: string): void {
    this.#onProblem({ kind: "unknown", name: printable(path), message });
  }

  #damagedLink(path: string): void {
    const message = "the link does not contain the digest that it should";
    this.#onProblem({ kind: "damaged", name: printable(path), message });
  }
}

/**
 * Finds the tree of a Distribution registry: DIR is its storage root, or the folder `docker/registry/v2`
 * itself.
 *
 * @returns undefined if there is none
 * @throws the system's errors
 */
export async function findDistributionTree(
  dir: string,
): Promise<string | undefined> {
  const root = await ifPresent(realpath(dir));
  if (root === undefined) return undefined;
  for (const below of ROOTS) {
    const path = join(root, below);
    const parts = await Promise.all(
      ["repositories", "blobs"].map((part) =>
        ifPresent(lstat(join(path, part))),
      ),
    );
    if (parts.every((stats) => stats?.isDirectory() === true)) return path;
  }
  return undefined;
}

interface SmallFile {
  readonly bytes: Buffer;
  readonly userId: number;
  readonly modifiedAtMs: number;
}

/** @returns undefined if the path has no regular file */
async function readSmallFile(
  path: string,
  maxBytes: number,
): Promise<SmallFile | "too-large" | undefined> {
  const file = await ifPresent(open(path, OPEN_FLAGS));
  if (file === undefined) return undefined;
  try {
    const stats = await file.stat();
    if (!stats.isFile()) return undefined;
    if (stats.size > maxBytes) return "too-large";
    const bytes = Buffer.alloc(stats.size);
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await file.read(bytes, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return {
      bytes: bytes.subarray(0, length),
      userId: stats.uid,
      modifiedAtMs: stats.mtimeMs,
    };
  } finally {
    await file.close();
  }
}

async function isFolder(path: string): Promise<boolean> {
  return (await ifPresent(lstat(path)))?.isDirectory() === true;
}

async function ifPresent<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isSystemError(error) && ABSENT.has(error.code)) return undefined;
    throw error;
  }
}

function isSystemError(
  error: unknown,
): error is Error & { readonly code: string } {
  return (
    error instanceof Error && "code" in error && typeof error.code === "string"
  );
}

/** Returns the name of a foreign file without characters that a terminal interprets. */
function printable(text: string): string {
  return text.replaceAll(/[^ -~]/g, "?");
}
