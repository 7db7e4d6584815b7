import { type Digest, possibleSize } from "../oci/digest.ts";
import { parseLength } from "../wire/body.ts";
import type { Answer } from "../wire/exchange.ts";

export interface BlobRange {
  readonly offset: number;
  /** Inclusive; absent: to the end. */
  readonly lastByte: number | undefined;
}

export interface BlobAnswer {
  readonly status: 200 | 206;
  readonly offset: number;
  /** The size of the whole blob, if the answer states it. */
  readonly sizeBytes: number | undefined;
  /** The length of this body, if the answer states it. */
  readonly expectedBytes: number | undefined;
}

const CONTENT_RANGE = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i;

/** Returns the `Range` to send; undefined for the whole blob. */
export function rangeHeader({
  offset,
  lastByte,
}: BlobRange): string | undefined {
  return offset === 0 && lastByte === undefined
    ? undefined
    : `bytes=${offset}-${lastByte ?? ""}`;
}

/**
 * Checks that a 200 or 206 is the requested content. A request for the whole blob accepts 200 only; a
 * request for a range accepts 206 with exactly that range, or 200, which is the whole blob. A length
 * of 0 is valid only for the digest of the empty blob.
 *
 * @returns the fault, as a text for the log, if the answer is not valid
 */
export function judgeBlobAnswer(
  answer: Answer,
  digest: Digest,
  wanted: BlobRange,
): BlobAnswer | string {
  const length = parseLength(answer.header("content-length"));
  if (answer.status === 200) {
    // A client would accept it as the whole blob.
    if (length === 0 && possibleSize(digest, length) === undefined) {
      return "got length 0 for a blob that is not empty";
    }
    return {
      status: 200,
      offset: 0,
      sizeBytes: length,
      expectedBytes: length,
    };
  }
  if (answer.status !== 206)
    return `got status ${answer.status}; expected 200 or 206`;
  if (rangeHeader(wanted) === undefined) {
    return "got 206 for a request without Range";
  }
  const [, first, last, total] =
    CONTENT_RANGE.exec(answer.header("content-range") ?? "") ?? [];
  const start = parseLength(first);
  const end = parseLength(last);
  const sizeBytes = parseLength(total);
  if (start === undefined || end === undefined) {
    return "got 206 without a valid Content-Range";
  }
  const expectedBytes = end - start + 1;
  const lastWanted = Math.min(
    wanted.lastByte ?? Infinity,
    (sizeBytes ?? Infinity) - 1,
  );
  const isWanted =
    start === wanted.offset &&
    end >= start &&
    (end === lastWanted || lastWanted === Infinity) &&
    (length === undefined || length === expectedBytes);
  return isWanted
    ? { status: 206, offset: start, sizeBytes, expectedBytes }
    : `got 206 with another range; expected ${rangeHeader(wanted)}`;
}
