/** Bytes in one of each unit; `kB` is the SI spelling, `KB` the common one. */
const SIZE_UNITS: ReadonlyMap<string, bigint> = new Map([
  ["B", 1n],
  ["kB", 1_000n],
  ["KB", 1_000n],
  ["MB", 1_000_000n],
  ["GB", 1_000_000_000n],
  ["TB", 1_000_000_000_000n],
  ["KiB", 1_024n],
  ["MiB", 1_048_576n],
  ["GiB", 1_073_741_824n],
  ["TiB", 1_099_511_627_776n],
]);

/** Bytes, or a share of the file system between 0 and 1. */
export type AmountConfig =
  { readonly bytes: number } | { readonly share: number };

/** Milliseconds in one of each unit, the largest first. */
const DURATION_UNITS: ReadonlyMap<string, bigint> = new Map([
  ["d", 86_400_000n],
  ["h", 3_600_000n],
  ["m", 60_000n],
  ["s", 1_000n],
  ["ms", 1n],
]);

/** Matches what {@link parseDuration} reads, for the published schema; the parser also rejects more than 2^53 ms. */
export const DURATION_PATTERN = "^(?:forever|\\d+(?:\\.\\d+)?(?:ms|s|m|h|d))$";

/** Matches what {@link parseAmount} reads, for the published schema. */
export const AMOUNT_PATTERN =
  "^(?:0|\\d+(?:\\.\\d+)?(?:%|B|[kKMGT]B|[KMGT]iB))$";

/** Describes a valid size, for faults and errors about an option. */
export const SIZE_EXPECTED = "a size with a unit such as 10GiB, or 0";

const QUANTITY = /^(\d{1,16})(?:\.(\d{1,16}))?([A-Za-z]*)$/;

/**
 * Reads a size: `10GiB`, `500MB`, `1.5GiB`, or `0`. Any other number without a unit is invalid:
 * `10` could be meant as gibibytes.
 *
 * @returns whole bytes, at most 2^53 - 1
 */
export function parseSize(value: string | number): number | undefined {
  const text = String(value);
  return text === "0" ? 0 : parseQuantity(text, SIZE_UNITS);
}

/**
 * Reads a size, or a share of the file system: `80%`.
 *
 * @returns bytes, or a share between 0 and 1
 */
export function parseAmount(value: string | number): AmountConfig | undefined {
  const text = String(value);
  if (!text.endsWith("%")) {
    const bytes = parseSize(text);
    return bytes === undefined ? undefined : { bytes };
  }
  const percent = text.slice(0, -1);
  return /^\d{1,3}(?:\.\d{1,6})?$/.test(percent) && Number(percent) <= 100
    ? { share: Number(percent) / 100 }
    : undefined;
}

/** Matches what {@link parseDailyShare} reads, for the published schema. */
export const DAILY_SHARE_PATTERN = "^(?:off|\\d{1,3}(?:\\.\\d{1,6})?%)$";

/** Reads a share of the whole per day, as in `1%`; `off` is 0, and `0%` is invalid. */
export function parseDailyShare(text: string): number | undefined {
  if (text === "off") return 0;
  const amount = text.endsWith("%") ? parseAmount(text) : undefined;
  return amount !== undefined && "share" in amount && amount.share > 0
    ? amount.share
    : undefined;
}

/** Returns the text that {@link parseDailyShare} reads back. */
export function formatDailyShare(share: number): string {
  return share === 0 ? "off" : formatAmount({ share });
}

/** Matches what {@link parseDurationOrOff} reads, for the published schema. */
export const DURATION_OR_OFF_PATTERN =
  "^(?:off|\\d+(?:\\.\\d+)?(?:ms|s|m|h|d))$";

/** Reads a duration as {@link parseDuration} does; `off` is Infinity, and `forever` is not a duration here. */
export function parseDurationOrOff(text: string): number | undefined {
  if (text === "off") return Infinity;
  return text === "forever" ? undefined : parseDuration(text);
}

/** Returns the text that {@link parseDurationOrOff} reads back. */
export function formatDurationOrOff(durationMs: number): string {
  return durationMs === Infinity ? "off" : formatDuration(durationMs);
}

/** Returns the text that {@link parseAmount} reads back. */
export function formatAmount(amount: AmountConfig): string {
  return "bytes" in amount
    ? formatSize(amount.bytes)
    : `${Number((amount.share * 100).toFixed(6))}%`;
}

/** Reads a limit in bytes, or in bytes per second; 0 is unlimited, Infinity. */
export function parseRate(text: string): number | undefined {
  const rate = parseSize(text);
  return rate === 0 ? Infinity : rate;
}

/** Returns what {@link parseRate} reads back. */
export function formatRate(bytesPerSecond: number): string | number {
  return bytesPerSecond === Infinity ? 0 : formatSize(bytesPerSecond);
}

/** Returns the text that {@link parseSize} reads back: the largest binary unit that leaves a whole number. */
export function formatSize(sizeBytes: number): string {
  for (const [unit, power] of [
    ["TiB", 4],
    ["GiB", 3],
    ["MiB", 2],
    ["KiB", 1],
  ] as const) {
    const factor = 1024 ** power;
    if (sizeBytes > 0 && sizeBytes % factor === 0) {
      return `${sizeBytes / factor}${unit}`;
    }
  }
  return `${sizeBytes}B`;
}

/**
 * Reads a duration: `500ms`, `30s`, `10m`, `24h`, `90d`, `0s`, `forever`. A number without a unit is invalid.
 *
 * @returns whole milliseconds, at most 2^53 - 1, or Infinity for `forever`
 */
export function parseDuration(text: string): number | undefined {
  return text === "forever" ? Infinity : parseQuantity(text, DURATION_UNITS);
}

/**
 * Returns the text that {@link parseDuration} reads back: the largest unit that leaves a whole number.
 *
 * @param durationMs a whole number, or Infinity
 */
export function formatDuration(durationMs: number): string {
  if (durationMs === Infinity) return "forever";
  if (durationMs === 0) return "0s";
  const whole = BigInt(durationMs);
  for (const [unit, factor] of DURATION_UNITS) {
    if (whole % factor === 0n) return `${whole / factor}${unit}`;
  }
  return `${whole}ms`;
}

/** Calculates exactly, so that 1.1d is 95 040 000 ms; rejects a result that is not a whole number. */
function parseQuantity(
  text: string,
  units: ReadonlyMap<string, bigint>,
): number | undefined {
  const match = QUANTITY.exec(text);
  if (match === null) return undefined;
  const [, whole = "", fraction = "", unit = ""] = match;
  const factor = units.get(unit);
  if (factor === undefined) return undefined;
  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(whole + fraction) * factor;
  if (scaled % scale !== 0n) return undefined;
  const quantity = Number(scaled / scale);
  return Number.isSafeInteger(quantity) ? quantity : undefined;
}
