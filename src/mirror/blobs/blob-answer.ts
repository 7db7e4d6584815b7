import type { ByteRange, RangeSpec } from "../../oci/range.ts";
import type { CacheStatus } from "../../telemetry/cache-status.ts";
import type { Body, RangedBody } from "./body.ts";

/** What blobs are served as that nobody ever called a manifest. */
export const BLOB_MEDIA_TYPE = "application/octet-stream";

/** What HEAD tells. */
export interface BlobHead {
  readonly sizeBytes: number | undefined;
  readonly mediaType: string;
  readonly status: CacheStatus;
  /** Since the bytes came from the upstream; undefined where they are not stored. */
  readonly ageMs: number | undefined;
}

/** Where the bytes of an answer come from, for `served_bytes_total`. */
export type BodySource = "cache" | "upstream";

export type BlobAnswer =
  | {
      readonly kind: "body";
      /** Of the whole blob; undefined where nobody told: sent chunked. */
      readonly sizeBytes: number | undefined;
      /** Present: a part of the blob, 206. */
      readonly range: ByteRange | undefined;
      readonly mediaType: string;
      readonly status: CacheStatus;
      /** Since the bytes came from the upstream; undefined where they come now. */
      readonly ageMs: number | undefined;
      readonly source: BodySource;
      /** The caller calls it when the client has all of the body. */
      readonly onGiven?: (() => void) | undefined;
      /** The caller closes it. */
      readonly body: Body;
    }
  | {
      /** Several parts of the blob, 206 too. */
      readonly kind: "parts";
      readonly sizeBytes: number;
      /** At least two, in the order in which they are sent. */
      readonly ranges: readonly ByteRange[];
      readonly mediaType: string;
      readonly status: CacheStatus;
      readonly ageMs: number | undefined;
      readonly source: BodySource;
      /** The caller calls it when the client has all of the parts. */
      readonly onGiven?: (() => void) | undefined;
      /** The caller sets its ranges, and closes it. */
      readonly body: RangedBody;
    }
  | {
      readonly kind: "unsatisfiable";
      readonly sizeBytes: number;
      readonly status: CacheStatus;
    };

/** How a client wants a blob. */
export interface BlobDemand {
  /** Absent: the whole blob. */
  readonly ranges?: readonly RangeSpec[] | undefined;
  /** The client can't be sent a body of unknown length: the size is waited for. */
  readonly isSizeNeeded?: boolean;
  /** The client's address. Absent: the mirror itself asks. */
  readonly client?: string | undefined;
}

/** Whether it is all of a blob: `bytes=0-` is asked for by some engines, and gets the same. */
export function isWhole(
  range: ByteRange | undefined,
  sizeBytes: number | undefined,
): boolean {
  return (
    range === undefined || (range.first === 0 && range.last + 1 === sizeBytes)
  );
}
