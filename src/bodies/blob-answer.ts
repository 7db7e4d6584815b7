import type { ByteRange, RangeSpec } from "../oci/range.ts";
import type { CacheStatus } from "../telemetry/cache-status.ts";
import type { Body, RangedBody } from "./body.ts";

/** The media type of blobs that were never stored as a manifest. */
export const BLOB_MEDIA_TYPE = "application/octet-stream";

/** The answer to a HEAD of a blob. */
export interface BlobHead {
  readonly sizeBytes: number | undefined;
  readonly mediaType: string;
  readonly status: CacheStatus;
  /** Time since the bytes were fetched; undefined if they are not stored. */
  readonly ageMs: number | undefined;
}

/** The source of an answer's bytes, for `served_bytes_total`. */
export type BodySource = "cache" | "upstream";

export type BlobAnswer =
  | {
      readonly kind: "body";
      /** Size of the whole blob; undefined if neither upstream nor manifest reports it: sent chunked. */
      readonly sizeBytes: number | undefined;
      /** Present: a part of the blob, 206. */
      readonly range: ByteRange | undefined;
      readonly mediaType: string;
      readonly status: CacheStatus;
      /** Time since the bytes were fetched; undefined if they are being fetched. */
      readonly ageMs: number | undefined;
      readonly source: BodySource;
      /** Called by the caller when the whole body has been sent. */
      readonly onSent?: (() => void) | undefined;
      /** Closed by the caller. */
      readonly body: Body;
    }
  | {
      /** Several parts of the blob, also 206. */
      readonly kind: "parts";
      readonly sizeBytes: number;
      /** At least two, in the order in which they are sent. */
      readonly ranges: readonly ByteRange[];
      readonly mediaType: string;
      readonly status: CacheStatus;
      readonly ageMs: number | undefined;
      readonly source: BodySource;
      /** Called by the caller when all parts have been sent. */
      readonly onSent?: (() => void) | undefined;
      /** The caller sets its ranges and closes it. */
      readonly body: RangedBody;
    }
  | {
      readonly kind: "unsatisfiable";
      readonly sizeBytes: number;
      readonly status: CacheStatus;
    };

/** Which part of a blob a client requests, and in which form. */
export interface BlobDemand {
  /** Absent: the whole blob. */
  readonly ranges?: readonly RangeSpec[] | undefined;
  /** The client cannot receive a body of unknown length: the answer waits for the size. */
  readonly isSizeNeeded?: boolean;
  /** The client's address. Absent: a request of the mirror itself. */
  readonly client?: string | undefined;
}

/** Whether a range covers a whole blob: some engines request `bytes=0-`. */
export function isWhole(
  range: ByteRange | undefined,
  sizeBytes: number | undefined,
): boolean {
  return (
    range === undefined || (range.first === 0 && range.last + 1 === sizeBytes)
  );
}
