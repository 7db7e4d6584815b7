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
  /** Of the whole blob, where told. */
  readonly sizeBytes: number | undefined;
  /** Of this body, where told. */
  readonly expectedBytes: number | undefined;
}

const CONTENT_RANGE = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i;

/** The `Range` to send; undefined for the whole blob. */
export function rangeHeader({
  offset,
  lastByte,
}: BlobRange): string | undefined {
  return offset === 0 && lastByte === undefined
    ? undefined
    : `bytes=${offset}-${lastByte ?? ""}`;
}

/**
 * Whether a 200 or 206 is what was asked for: a whole request takes 200 only; a range takes 206
 * with exactly that range, or 200, which is the whole from its first byte. Only the digest of
 * nothing is answered with a length of 0.
 *
 * @returns a text for the log where it is not
 */
export function judgeBlobAnswer(
  answer: Answer,
  digest: Digest,
  asked: BlobRange,
): BlobAnswer | string {
  const length = parseLength(answer.header("content-length"));
  if (answer.status === 200) {
    // A client would take it for the whole blob.
    if (length === 0 && possibleSize(digest, length) === undefined) {
      return "length 0 for a digest that is not that of nothing";
    }
    return {
      status: 200,
      offset: 0,
      sizeBytes: length,
      expectedBytes: length,
    };
  }
  if (answer.status !== 206) return `status ${answer.status}`;
  if (rangeHeader(asked) === undefined)
    return "206 for a request without Range";
  const [, first, last, total] =
    CONTENT_RANGE.exec(answer.header("content-range") ?? "") ?? [];
  const start = parseLength(first);
  const end = parseLength(last);
  const sizeBytes = parseLength(total);
  if (start === undefined || end === undefined) {
    return "206 without a usable Content-Range";
  }
  const expectedBytes = end - start + 1;
  const lastWanted = Math.min(
    asked.lastByte ?? Infinity,
    (sizeBytes ?? Infinity) - 1,
  );
  const isAsked =
    start === asked.offset &&
    end >= start &&
    (end === lastWanted || lastWanted === Infinity) &&
    (length === undefined || length === expectedBytes);
  return isAsked
    ? { status: 206, offset: start, sizeBytes, expectedBytes }
    : `206 with another range than ${rangeHeader(asked)}`;
}
