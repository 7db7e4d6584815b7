import { RE2JS } from "re2js";

/** A version as the semver library of Go's tools reads it: `v1.2` is 1.2.0, and `01.2` is 1.2.0 too. */
export interface SemverVersion {
  readonly major: bigint;
  readonly minor: bigint;
  readonly patch: bigint;
  /** Identifiers after the hyphen, as in `rc.1`; empty: a release. */
  readonly prerelease: string;
}

const MAX_VERSION_LENGTH = 256;
const MAX_UINT64 = 2n ** 64n - 1n;

const PRERELEASE_AND_BUILD =
  "(-([0-9A-Za-z\\-]+(\\.[0-9A-Za-z\\-]+)*))?" +
  "(\\+([0-9A-Za-z\\-]+(\\.[0-9A-Za-z\\-]+)*))?";
const VERSION = RE2JS.compile(
  `^v?([0-9]+)(\\.[0-9]+)?(\\.[0-9]+)?${PRERELEASE_AND_BUILD}$`,
);

/**
 * Parses a version, or a tag that may be one.
 *
 * @see https://github.com/Masterminds/semver/blob/v3.5.0/version.go (`NewVersion`)
 */
export function parseSemverVersion(text: string): SemverVersion | undefined {
  if (text.length > MAX_VERSION_LENGTH) return undefined;
  const match = VERSION.matcher(text);
  if (!match.find()) return undefined;
  const major = parseUint(match.group(1));
  const minor = parseUint(match.group(2)?.slice(1));
  const patch = parseUint(match.group(3)?.slice(1));
  const prerelease = match.group(5) ?? "";
  return major === undefined ||
    minor === undefined ||
    patch === undefined ||
    !isPrerelease(prerelease)
    ? undefined
    : { major, minor, patch, prerelease };
}

/** Returns a number below, above or equal to 0, in the order of the specification; builds are ignored. */
export function compareSemver(a: SemverVersion, b: SemverVersion): number {
  return (
    compareNumbers(a.major, b.major) ||
    compareNumbers(a.minor, b.minor) ||
    compareNumbers(a.patch, b.patch) ||
    comparePrereleases(a.prerelease, b.prerelease)
  );
}

/** A release follows its prereleases. */
function comparePrereleases(a: string, b: string): number {
  if (a === b) return 0;
  if (a === "") return 1;
  if (b === "") return -1;
  return comparePrereleaseParts(a, b);
}

/** As the library compares prereleases when one of them may be absent: then it comes first. */
export function comparePrereleaseParts(a: string, b: string): number {
  const aParts = a.split(".");
  const bParts = b.split(".");
  for (let i = 0; i < Math.max(aParts.length, bParts.length); i += 1) {
    const order = comparePart(aParts[i] ?? "", bParts[i] ?? "");
    if (order !== 0) return order;
  }
  return 0;
}

/** Numbers come before texts, and an absent part before both. */
function comparePart(a: string, b: string): number {
  if (a === b) return 0;
  if (a === "") return -1;
  if (b === "") return 1;
  const aNumber = /^[0-9]+$/.test(a) ? parseUint(a) : undefined;
  const bNumber = /^[0-9]+$/.test(b) ? parseUint(b) : undefined;
  if (aNumber === undefined && bNumber === undefined) return a > b ? 1 : -1;
  if (bNumber === undefined) return -1;
  if (aNumber === undefined) return 1;
  return aNumber > bNumber ? 1 : -1;
}

function compareNumbers(a: bigint, b: bigint): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** @returns 0 for an absent number; undefined above 64 bits */
function parseUint(digits: string | null | undefined): bigint | undefined {
  const value = BigInt(digits ?? "0");
  return value > MAX_UINT64 ? undefined : value;
}

/** A number among the identifiers has no leading zero. */
function isPrerelease(text: string): boolean {
  return (
    text === "" || text.split(".").every((part) => !/^0[0-9]+$/.test(part))
  );
}
