/** Services that keep small documents across restarts. */
export type RecordKind = "job" | "wish";

export interface KeptRecord {
  /** Chosen by the service; unique within the kind. */
  readonly id: string;
  /** JSON of at most some MiB. */
  readonly text: string;
}

/**
 * Documents of services, in the index. They are lost with the index, and are not part of the
 * cached content: the service bounds their number and size.
 */
export interface KeptRecords {
  /** Writes documents, replacing those with the same id, and removes others. */
  writeRecords(
    kind: RecordKind,
    put: readonly KeptRecord[],
    drop: readonly string[],
  ): Promise<void>;
  /** Lists in the order of their ids after `last`. */
  listRecords(
    kind: RecordKind,
    limit: number,
    last: string | undefined,
  ): Promise<readonly KeptRecord[]>;
}
