import type { Digest } from "../../../oci/digest.ts";
import type { Uses } from "../../access-times.ts";
import { bytesOf } from "./index-keys.ts";
import type { IndexStatements } from "./index-statements.ts";
import type { SqliteRoots } from "./sqlite-roots.ts";

/** Separates a path from a tag or digest; it occurs in none of them. */
export const USE_SEPARATOR = "\n";

/** Writes times of last use. Runs in the caller's transaction. */
export function writeUses(
  statements: IndexStatements,
  roots: SqliteRoots,
  uses: Uses,
): void {
  for (const [key, atMs] of uses) writeUse(statements, roots, key, atMs);
}

/** A key is the digest of a blob, or a path followed by a tag or the digest of a manifest. */
function writeUse(
  statements: IndexStatements,
  roots: SqliteRoots,
  use: string,
  atMs: number,
): void {
  const separator = use.indexOf(USE_SEPARATOR);
  if (separator === -1) {
    statements.touchBlob.run(atMs, bytesOf(use as Digest));
    roots.touchBlob(use as Digest, atMs);
    return;
  }
  const path = use.slice(0, separator);
  const name = use.slice(separator + USE_SEPARATOR.length);
  if (name.includes(":")) {
    const digest = name as Digest;
    statements.touchBlob.run(atMs, bytesOf(digest));
    const repository = statements.findRepositoryId.get(path);
    if (repository !== undefined) {
      roots.touchManifest(repository.id, digest, atMs);
    }
  } else {
    roots.touchTag(path, name, atMs);
  }
}
