/** A range as asked for, before the size is known. */
export type RangeSpec =
  | { readonly kind: "from"; readonly first: number }
  | { readonly kind: "between"; readonly first: number; readonly last: number }
  /** The last `length` bytes; 0 is legal and never satisfiable. */
  | { readonly kind: "suffix"; readonly length: number };

/** Offsets of bytes, both inclusive, within the blob. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/** Longer than any pair of offsets that a number can hold. */
const MAX_RANGE_LENGTH = 128;
const SINGLE_RANGE = /^bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))$/i;

/**
 * Reads a `Range` header. Undefined where it is to be ignored and the whole is answered: another
 * unit, several ranges (podman asks for up to 1024 and takes a 200), or anything malformed.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-14.2
 */
export function parseRangeHeader(
  header: string | undefined,
): RangeSpec | undefined {
  if (header === undefined || header.length > MAX_RANGE_LENGTH) {
    return undefined;
  }
  const match = SINGLE_RANGE.exec(header.trim());
  if (match === null) return undefined;
  const [, first = "", last = "", length] = match;
  if (length !== undefined) {
    return { kind: "suffix", length: toOffset(length) };
  }
  if (last === "") return { kind: "from", first: toOffset(first) };
  return BigInt(last) < BigInt(first)
    ? undefined
    : { kind: "between", first: toOffset(first), last: toOffset(last) };
}

/** No blob is as long, so what is cut off changes no answer. */
function toOffset(digits: string): number {
  return Math.min(Number(digits), Number.MAX_SAFE_INTEGER);
}

/** Which bytes of a blob of this size are meant. An empty blob has none, so every range of it is unsatisfiable. */
export function resolveRange(
  spec: RangeSpec,
  sizeBytes: number,
): ByteRange | "unsatisfiable" {
  const end = sizeBytes - 1;
  switch (spec.kind) {
    case "from":
      return spec.first > end
        ? "unsatisfiable"
        : { first: spec.first, last: end };
    case "between":
      return spec.first > end
        ? "unsatisfiable"
        : { first: spec.first, last: Math.min(spec.last, end) };
    case "suffix":
      break;
  }
  return spec.length === 0 || sizeBytes === 0
    ? "unsatisfiable"
    : { first: Math.max(0, sizeBytes - spec.length), last: end };
}

/** The `Content-Range` of a 206. */
export function formatContentRange(
  range: ByteRange,
  sizeBytes: number,
): string {
  return `bytes ${range.first}-${range.last}/${sizeBytes}`;
}

/** The `Content-Range` of a 416. */
export function formatUnsatisfiedRange(sizeBytes: number): string {
  return `bytes */${sizeBytes}`;
}
