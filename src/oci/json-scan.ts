/** Measurements of a JSON text, taken before it is parsed. */
export interface JsonScan {
  readonly depth: number;
  /** Opening brackets, commas and colons: the work and memory of a parser grow with them. */
  readonly marks: number;
  /**
   * The raw keys of the outermost object, quotes included, in order and with repetitions; keys
   * longer than `maxKeyBytes` are left out.
   */
  readonly topLevelKeys: readonly string[];
}

export interface JsonScanBounds {
  readonly maxDepth: number;
  readonly maxMarks: number;
  /** In a single object. */
  readonly maxMembers: number;
  readonly maxKeyBytes: number;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/**
 * Counts over the bytes without parsing them: `JSON.parse` needs 0.6 s and 150 MB for 4 MiB of
 * `[[[…`, and as much for objects with a hundred thousand keys.
 * Does not check whether the text is JSON.
 *
 * @returns undefined as soon as a bound is exceeded
 */
export function scanJson(
  bytes: Uint8Array,
  bounds: JsonScanBounds,
): JsonScan | undefined {
  const keys: { readonly start: number; readonly end: number }[] = [];
  let depth = 0;
  let deepest = 0;
  let marks = 0;
  /** Of the open object at each depth. */
  const members: number[] = [];
  let lastString = { start: 0, end: 0 };
  for (let at = 0; at < bytes.length; at++) {
    switch (bytes[at] ?? 0) {
      case QUOTE: {
        const end = endOfString(bytes, at);
        lastString = { start: at, end };
        at = end - 1;
        break;
      }
      case OPEN_BRACE:
      case OPEN_BRACKET:
        depth++;
        marks++;
        members[depth] = 0;
        deepest = Math.max(deepest, depth);
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        depth = Math.max(0, depth - 1);
        break;
      case COMMA:
        marks++;
        break;
      case COLON: {
        marks++;
        const count = (members[depth] ?? 0) + 1;
        if (count > bounds.maxMembers) return undefined;
        members[depth] = count;
        if (
          depth === 1 &&
          lastString.end - lastString.start <= bounds.maxKeyBytes
        ) {
          keys.push(lastString);
        }
        break;
      }
      default:
        break;
    }
    if (deepest > bounds.maxDepth || marks > bounds.maxMarks) {
      return undefined;
    }
  }
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const topLevelKeys = keys.map(({ start, end }) =>
    buffer.toString("utf8", start, end),
  );
  return { depth: deepest, marks, topLevelKeys };
}

/** Returns the index after the closing quote, or the end of the bytes. */
function endOfString(bytes: Uint8Array, start: number): number {
  let at = start + 1;
  while (at < bytes.length && bytes[at] !== QUOTE) {
    at += bytes[at] === BACKSLASH ? 2 : 1;
  }
  return Math.min(at + 1, bytes.length);
}
