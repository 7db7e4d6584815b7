import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import type { Digest } from "../../../oci/digest.ts";
import { OCTET_STREAM } from "../../../oci/media-type.ts";
import { bytesOf, pathOf } from "./index-keys.ts";
import type { IndexStatements } from "./index-statements.ts";
import type { IntentRows } from "./intents.ts";
import type { BlobRecord, BlobRow } from "../../blob-index.ts";
import { IndexError } from "../../metadata-index.ts";
import type { RepositoryKey } from "../../../oci/reference.ts";

/** Upstreams choose the names, so their number is bounded; some dozens are well known. */
const MAX_MEDIA_TYPES = 10_000;
/** Lower, so that the media types of children can't use up those of manifests. */
const MAX_EDGE_MEDIA_TYPES = 2_000;

/** Writes the rows of blobs, edges, digests, media types and repositories. Runs in the caller's transactions. */
export class BlobRows {
  readonly #statements: IndexStatements;
  readonly #intents: IntentRows;

  constructor(statements: IndexStatements, intents: IntentRows) {
    this.#statements = statements;
    this.#intents = intents;
  }

  /** @returns the row's id */
  putBlob({ digest, sizeBytes, storedAtMs, manifest }: BlobRecord): number {
    const id = this.digestId(digest);
    this.#statements.putBlob.run(id, sizeBytes, storedAtMs, storedAtMs);
    if (manifest !== undefined) {
      this.#statements.putManifest.run(
        id,
        this.mediaTypeId(manifest.mediaType),
        manifest.subject === undefined ? null : this.digestId(manifest.subject),
      );
      this.#putEdges(id, manifest.children);
    }
    this.settleIntent(digest);
    return id;
  }

  settleIntent(digest: Digest): void {
    this.#intents.drop(digest);
  }

  /** Replaces the edges: a newer version may read more children from the same bytes. */
  #putEdges(parentId: number, children: readonly ChildDescriptor[]): void {
    this.#statements.deleteEdges.run(parentId);
    for (const child of children) {
      this.#statements.putEdge.run({
        parentId,
        childId: this.digestId(child.digest),
        isManifest: child.role === "manifest" ? 1 : 0,
        isForeign: child.isForeign ? 1 : 0,
        sizeBytes: child.sizeBytes,
        mediaTypeId: this.#edgeMediaTypeId(child.mediaType),
      });
    }
  }

  digestId(digest: Digest): number {
    const bytes = bytesOf(digest);
    return (
      this.#statements.findDigestId.get(bytes)?.id ??
      Number(this.#statements.insertDigest.run(bytes).lastInsertRowid)
    );
  }

  /** @throws IndexError if there are too many media types */
  mediaTypeId(name: string): number {
    return this.#mediaTypeId(name, MAX_MEDIA_TYPES) ?? tooMany();
  }

  /** The media type of a child is informative only; above the bound it becomes `application/octet-stream`. */
  #edgeMediaTypeId(name: string): number {
    return (
      this.#mediaTypeId(name, MAX_EDGE_MEDIA_TYPES) ??
      this.mediaTypeId(OCTET_STREAM)
    );
  }

  /** Rows are never deleted, so the id of the last one is their number. */
  #mediaTypeId(name: string, limit: number): number | undefined {
    const found = this.#statements.findMediaTypeId.get(name);
    if (found !== undefined) return found.id;
    if ((this.#statements.lastMediaTypeId.get()?.id ?? 0) >= limit) {
      return undefined;
    }
    return Number(this.#statements.insertMediaType.run(name).lastInsertRowid);
  }

  repositoryId(key: RepositoryKey): number {
    return (
      this.#statements.findRepositoryId.get(pathOf(key))?.id ??
      Number(
        this.#statements.insertRepository.run(key.upstream, key.repository)
          .lastInsertRowid,
      )
    );
  }
}

/** Returns the row of a blob as users of the index read it. */
export function blobRow(
  digest: Digest,
  row:
    | {
        readonly sizeBytes: number;
        readonly storedAtMs: number;
        readonly verifiedAtMs: number;
        readonly mediaType: string | null;
      }
    | undefined,
): BlobRow | undefined {
  return (
    row && {
      digest,
      sizeBytes: row.sizeBytes,
      mediaType: row.mediaType ?? undefined,
      storedAtMs: row.storedAtMs,
      verifiedAtMs: row.verifiedAtMs,
    }
  );
}

function tooMany(): never {
  throw new IndexError(
    `got more than ${MAX_MEDIA_TYPES} media types; expected fewer, see the manifests of the upstreams`,
  );
}
