import type { Digest } from "../../../oci/digest.ts";
import { bytesOf, pathOf } from "./index-keys.ts";
import type { IndexStatements } from "./index-statements.ts";
import type { BlobScope } from "../../graph-index.ts";
import type { RepositoryKey } from "../../../oci/reference.ts";

/** Levels of indexes below the requested one; engines follow fewer. */
const MAX_INDEX_DEPTH = 4;

/**
 * Returns whether a pull of the manifest can be finished from the stored content: all blobs of an
 * image manifest, or those of one manifest of an index.
 *
 * @param blobScope where the blobs must be linked
 */
export function hasCompleteImage(
  statements: IndexStatements,
  key: RepositoryKey,
  digest: Digest,
  blobScope: BlobScope,
): boolean {
  const path = pathOf(key);
  const { findLinkedManifestId, findMissingBlobChild, findAbsentBlobChild } =
    statements;
  const root = findLinkedManifestId.get(path, bytesOf(digest));
  const hasAllBlobs = (id: number): boolean =>
    blobScope === "repository"
      ? findMissingBlobChild.get(id, path) === undefined
      : findAbsentBlobChild.get(id, key.upstream) === undefined;
  return (
    root !== undefined &&
    hasCompleteManifest(statements, root.id, path, hasAllBlobs)
  );
}

/**
 * Walks level by level and visits each manifest once, at its smallest depth. The cost is then
 * proportional to the number of manifests, however often indexes name each other.
 */
function hasCompleteManifest(
  statements: IndexStatements,
  rootId: number,
  path: string,
  hasAllBlobs: (manifestId: number) => boolean,
): boolean {
  const seen = new Set([rootId]);
  let level = [rootId];
  for (let depth = 0; depth <= MAX_INDEX_DEPTH; depth += 1) {
    const next: number[] = [];
    for (const id of level) {
      if (statements.hasManifestChild.get(id) === undefined) {
        if (hasAllBlobs(id)) return true;
        continue;
      }
      for (const child of statements.listLinkedManifestChildren.all(path, id)) {
        if (!seen.has(child.id)) next.push(child.id);
        seen.add(child.id);
      }
    }
    level = next;
  }
  return false;
}
