import {
  parseReference,
  type Reference,
  referenceText,
  type RepositoryKey,
  type RepositoryName,
} from "../../../oci/reference.ts";
import type { IndexCursor } from "../../index-cursor.ts";
import { IndexError } from "../../metadata-index.ts";

/** The last row returned from each of the two lists that the oldest roots are merged from. */
export interface OldestPlace {
  /** used_at_ms, repository_id, name */
  readonly tag: readonly [number, number, string];
  /** used_at_ms, blob_id, repository_id */
  readonly other: readonly [number, number, number];
}

/** The last image returned, or the start of a repository if there is no reference. */
export interface ImagePlace {
  readonly key: RepositoryKey;
  readonly reference: Reference | undefined;
}

export function oldestCursor({ tag, other }: OldestPlace): IndexCursor {
  return JSON.stringify([tag, other]) as IndexCursor;
}

export function readOldestCursor(cursor: IndexCursor): OldestPlace {
  const [tag, other] = readJson(cursor) as [
    OldestPlace["tag"],
    OldestPlace["other"],
  ];
  return { tag, other };
}

export function imageCursor({ key, reference }: ImagePlace): IndexCursor {
  return JSON.stringify([
    key.upstream,
    key.repository,
    reference === undefined ? "" : referenceText(reference),
  ]) as IndexCursor;
}

export function readImageCursor(cursor: IndexCursor): ImagePlace {
  const [upstream, repository, reference] = readJson(cursor) as [
    string,
    RepositoryName,
    string,
  ];
  return {
    key: { upstream, repository },
    reference: parseReference(reference),
  };
}

export function childCursor(id: number): IndexCursor {
  return String(id) as IndexCursor;
}

export function readChildCursor(cursor: IndexCursor): number {
  return readJson(cursor) as number;
}

/** @throws IndexError if the text is not a cursor of this index */
function readJson(cursor: IndexCursor): unknown {
  try {
    return JSON.parse(cursor);
  } catch (cause) {
    throw new IndexError(`got ${cursor}; expected a cursor of this index`, {
      cause,
    });
  }
}
