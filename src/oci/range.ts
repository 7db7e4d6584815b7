/** A requested range, before the size is known. */
export type RangeSpec =
  | { readonly kind: "from"; readonly first: number }
  | { readonly kind: "between"; readonly first: number; readonly last: number }
  /** The last `length` bytes; 0 is valid and never satisfiable. */
  | { readonly kind: "suffix"; readonly length: number };

/** Byte offsets within the blob, both inclusive. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/** More than fit into any accepted request head. */
const MAX_HEADER_LENGTH = 32 * 1024;
/** podman and CRI-O request up to this many in one header. */
const MAX_RANGES = 1_024;
/** Longer than any pair of offsets that fits into a number. */
const MAX_RANGE_LENGTH = 128;
const UNIT = /^bytes=/i;
const RANGE = /^(?:([0-9]+)-([0-9]*)|-([0-9]+))$/;
/** Optional white space around list elements (RFC 9110 section 5.6.1). */
const AROUND = /^[ \t]+|[ \t]+$/g;

/**
 * Parses a `Range` header. Returns undefined if it must be ignored and the whole blob is sent: another
 * unit, more than 1 024 ranges, or malformed.
 *
 * @returns at least one range, in the order of the header
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-14.2
 */
export function parseRangeHeader(
  header: string | undefined,
): readonly RangeSpec[] | undefined {
  if (header === undefined || header.length > MAX_HEADER_LENGTH) {
    return undefined;
  }
  const text = header.trim();
  if (!UNIT.test(text)) return undefined;
  const specs: RangeSpec[] = [];
  for (const element of text.slice("bytes=".length).split(",")) {
    const trimmed = element.replace(AROUND, "");
    // RFC 9110 section 5.6.1: empty list elements are ignored.
    if (trimmed === "") continue;
    const spec = parseRange(trimmed);
    if (spec === undefined || specs.length === MAX_RANGES) return undefined;
    specs.push(spec);
  }
  return specs.length === 0 ? undefined : specs;
}

const REVERSED = /^bytes=([0-9]+)-([0-9]+)$/i;

/**
 * Parses a `Range` header as {@link parseRangeHeader} does, except that one reversed range cannot be
 * satisfied: the conformance suite of the distribution-spec expects 416 for it.
 */
export function parseRegistryRange(
  header: string | undefined,
): readonly RangeSpec[] | undefined {
  const specs = parseRangeHeader(header);
  if (specs !== undefined || header === undefined) return specs;
  const text = header.trim();
  if (text.length > MAX_RANGE_LENGTH) return undefined;
  const [, first, last] = REVERSED.exec(text) ?? [];
  return first !== undefined &&
    last !== undefined &&
    BigInt(last) < BigInt(first)
    ? [{ kind: "suffix", length: 0 }]
    : undefined;
}

function parseRange(text: string): RangeSpec | undefined {
  const match = text.length > MAX_RANGE_LENGTH ? null : RANGE.exec(text);
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

/** Longer than any blob, so the cut changes no response. */
function toOffset(digits: string): number {
  return Math.min(Number(digits), Number.MAX_SAFE_INTEGER);
}

/** Resolves a range against a blob's size. Every range of an empty blob is unsatisfiable. */
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

/**
 * Resolves several ranges against a blob's size, in their order. Unsatisfiable ranges are left out;
 * overlapping ranges are merged in the place of the first. Adjacent ranges stay separate: clients
 * such as podman count the parts of a response.
 *
 * @returns an empty list if no range can be satisfied
 */
export function resolveRanges(
  specs: readonly RangeSpec[],
  sizeBytes: number,
): readonly ByteRange[] {
  const ranges = specs.flatMap((spec, place) => {
    const range = resolveRange(spec, sizeBytes);
    return range === "unsatisfiable" ? [] : [{ ...range, place }];
  });
  const merged: typeof ranges = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before === undefined || range.first > before.last) {
      merged.push(range);
    } else {
      merged[merged.length - 1] = {
        first: before.first,
        last: Math.max(before.last, range.last),
        place: Math.min(before.place, range.place),
      };
    }
  }
  return merged
    .toSorted((a, b) => a.place - b.place)
    .map(({ first, last }) => ({ first, last }));
}

/** Returns whether each range starts after the previous one ends. */
export function isAscending(ranges: readonly ByteRange[]): boolean {
  return ranges.every(
    ({ first }, at) => first > (ranges[at - 1]?.last ?? -Infinity),
  );
}

/** Formats the `Content-Range` of a 206. */
export function formatContentRange(
  range: ByteRange,
  sizeBytes: number,
): string {
  return `bytes ${range.first}-${range.last}/${sizeBytes}`;
}

/** Formats the `Content-Range` of a 416. */
export function formatUnsatisfiedRange(sizeBytes: number): string {
  return `bytes */${sizeBytes}`;
}
