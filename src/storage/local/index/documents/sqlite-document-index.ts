import type { Digest } from "../../../../oci/digest.ts";
import type { RepositoryKey } from "../../../../oci/reference.ts";
import type {
  KeptRecord,
  KeptRecords,
  RecordKind,
} from "../../../kept-records.ts";
import type {
  ReferrersRow,
  StoredReferrers,
  StoredTagLists,
  TagListRow,
} from "../../../list-index.ts";
import type { IndexParts } from "../index-parts.ts";

/** The part of the SQLite index for stored lists and for documents of services. */
export class SqliteDocumentIndex
  implements KeptRecords, StoredReferrers, StoredTagLists
{
  readonly #parts: IndexParts;

  constructor(parts: IndexParts) {
    this.#parts = parts;
  }

  getReferrers(
    key: RepositoryKey,
    subject: Digest,
  ): Promise<ReferrersRow | undefined> {
    return this.#parts.transactions.read("getReferrers", () =>
      this.#parts.referrers.get(key, subject),
    );
  }

  putReferrers(
    key: RepositoryKey,
    subject: Digest,
    row: ReferrersRow,
  ): Promise<boolean> {
    return this.#parts.transactions.write("putReferrers", () =>
      this.#parts.referrers.put(key, subject, row),
    );
  }

  getTagList(key: RepositoryKey): Promise<TagListRow | undefined> {
    return this.#parts.transactions.read("getTagList", () =>
      this.#parts.tagLists.get(key),
    );
  }

  putTagList(key: RepositoryKey, row: TagListRow): Promise<boolean> {
    return this.#parts.transactions.write("putTagList", () =>
      this.#parts.tagLists.put(key, row),
    );
  }

  dropTagList(key: RepositoryKey): Promise<void> {
    return this.#parts.transactions.write("dropTagList", () => {
      this.#parts.tagLists.drop(key);
    });
  }

  writeRecords(
    kind: RecordKind,
    put: readonly KeptRecord[],
    drop: readonly string[],
  ): Promise<void> {
    return this.#parts.transactions.writeUnread("writeRecords", () => {
      this.#parts.records.write(kind, put, drop);
    });
  }

  listRecords(
    kind: RecordKind,
    limit: number,
    last: string | undefined,
  ): Promise<readonly KeptRecord[]> {
    return this.#parts.transactions.read("listRecords", () =>
      this.#parts.records.list(kind, limit, last),
    );
  }
}
