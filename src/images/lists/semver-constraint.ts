import { RE2JS } from "re2js";
import {
  compareSemver,
  comparePrereleaseParts,
  parseSemverVersion,
  type SemverVersion,
} from "./semver-version.ts";
import type { ParsedSelector } from "./tag-regex.ts";

/**
 * The grammar of Masterminds' semver, which Go's tools use, as of version 3.5.0. It differs from that
 * of npm's `semver`: a comma means "and", `!=` exists, versions may be loose, `>11` excludes 11.1, and a
 * prerelease in a group admits the prereleases of every version.
 *
 * The expressions are those of the library. They are compiled by RE2, since they take exponential time
 * in a backtracking engine.
 *
 * @see https://github.com/Masterminds/semver/blob/v3.5.0/constraints.go
 */
const MAX_CONSTRAINT_LENGTH = 512;
const MAX_GROUPS = 32;

const VERSION =
  "v?([0-9|x|X|\\*]+)(\\.[0-9|x|X|\\*]+)?(\\.[0-9|x|X|\\*]+)?" +
  "(-([0-9A-Za-z\\-]+(\\.[0-9A-Za-z\\-]+)*))?" +
  "(\\+([0-9A-Za-z\\-]+(\\.[0-9A-Za-z\\-]+)*))?";
const OPERATORS = "=||!=|>|<|>=|=>|<=|=<|~|~>|\\^";
const ONE = RE2JS.compile(`^\\s*(${OPERATORS})\\s*(${VERSION})\\s*$`);
const RANGE = RE2JS.compile(`\\s*(${VERSION})\\s+-\\s+(${VERSION})\\s*`);
const EACH = RE2JS.compile(`(${OPERATORS})\\s*(${VERSION})`);
const GROUP = RE2JS.compile(
  `^(\\s*(${OPERATORS})\\s*(${VERSION})\\s*)((?:\\s+|,\\s*)(${OPERATORS})\\s*(${VERSION})\\s*)*$`,
);

/** What a fault expects instead of a text that is not a constraint. */
const CONSTRAINT_FORM =
  'comparisons such as ">=1.2, <2 || ^3.1" (Masterminds semver)';

interface Constraint {
  readonly test: Test;
  readonly version: SemverVersion;
  /** From the first part that is `x` or absent on, every version is meant. */
  readonly open: "major" | "minor" | "patch" | "none";
}

type Test = (version: SemverVersion, constraint: Constraint) => boolean;

interface Group {
  readonly constraints: readonly Constraint[];
  /** Prereleases are selected only by groups that name one. */
  readonly admitsPrereleases: boolean;
}

/** Parses a constraint; it selects the tags that are versions and satisfy it. */
export function parseSemverConstraint(text: string): ParsedSelector {
  const groups = parseGroups(text);
  if (groups === undefined) {
    return {
      ok: false,
      reason: `got ${JSON.stringify(text.slice(0, MAX_CONSTRAINT_LENGTH))}; expected ${CONSTRAINT_FORM}`,
    };
  }
  return {
    ok: true,
    selects: (tag) => {
      const version = parseSemverVersion(tag);
      return (
        version !== undefined &&
        groups.some((group) => satisfies(version, group))
      );
    },
  };
}

function satisfies(version: SemverVersion, group: Group): boolean {
  return (
    (version.prerelease === "" || group.admitsPrereleases) &&
    group.constraints.every((constraint) =>
      constraint.test(version, constraint),
    )
  );
}

function parseGroups(text: string): Group[] | undefined {
  if (text.length > MAX_CONSTRAINT_LENGTH) return undefined;
  const parts = rewriteRanges(text).split("||");
  if (parts.length > MAX_GROUPS) return undefined;
  const groups: Group[] = [];
  for (const part of parts) {
    const group = GROUP.test(part) ? parseGroup(part) : undefined;
    if (group === undefined) return undefined;
    groups.push(group);
  }
  return groups;
}

/** `1.2 - 1.4` becomes `>= 1.2, <= 1.4`. */
function rewriteRanges(text: string): string {
  let rewritten = text;
  const match = RANGE.matcher(text);
  while (match.find()) {
    const from = match.group(1) ?? "";
    const to = match.group(11) ?? "";
    // The first equal text, as the library replaces it; a function, since `$` has a meaning in a text.
    rewritten = rewritten.replace(
      match.group() ?? "",
      () => `>= ${from}, <= ${to} `,
    );
  }
  return rewritten;
}

function parseGroup(text: string): Group | undefined {
  const constraints: Constraint[] = [];
  const match = EACH.matcher(text);
  while (match.find()) {
    const constraint = parseConstraint(match.group() ?? "");
    if (constraint === undefined) return undefined;
    constraints.push(constraint);
  }
  return {
    constraints,
    admitsPrereleases: constraints.some(
      ({ version }) => version.prerelease !== "",
    ),
  };
}

function parseConstraint(text: string): Constraint | undefined {
  const match = ONE.matcher(text);
  if (!match.find()) return undefined;
  const test = TESTS[match.group(1) ?? ""];
  const major = match.group(3) ?? "";
  const minor = match.group(4) ?? "";
  const patch = match.group(5) ?? "";
  const prerelease = match.group(6) ?? "";
  let open: Constraint["open"] = "none";
  let written = match.group(2) ?? "";
  if (isAny(major)) {
    open = "major";
    written = `0.0.0${prerelease}`;
  } else if (isAny(minor.slice(1))) {
    open = "minor";
    written = `${major}.0.0${prerelease}`;
  } else if (isAny(patch.slice(1))) {
    open = "patch";
    written = `${major}${minor}.0${prerelease}`;
  }
  const version = parseSemverVersion(written);
  return test === undefined || version === undefined
    ? undefined
    : { test, version, open };
}

function isAny(part: string): boolean {
  return part === "" || part === "x" || part === "X" || part === "*";
}

const TESTS: Readonly<Record<string, Test>> = {
  "": isTildeOrEqual,
  "=": isTildeOrEqual,
  "!=": isNotEqual,
  ">": isGreater,
  "<": (version, { version: bound }) => compareSemver(version, bound) < 0,
  ">=": isAtLeast,
  "=>": isAtLeast,
  "<=": isAtMost,
  "=<": isAtMost,
  "~": isTilde,
  "~>": isTilde,
  "^": isCaret,
};

function isAtLeast(version: SemverVersion, constraint: Constraint): boolean {
  return compareSemver(version, constraint.version) >= 0;
}

/** `!=1.2` excludes 1.2 in every patch level. */
function isNotEqual(version: SemverVersion, constraint: Constraint): boolean {
  const { version: bound, open } = constraint;
  if (open === "none") return compareSemver(version, bound) !== 0;
  if (version.major !== bound.major) return true;
  // `!=*` excludes 0.0.0 only, as the library does.
  if (open === "major") {
    return version.minor !== bound.minor || version.patch !== bound.patch
      ? true
      : compareSemver(version, bound) !== 0;
  }
  if (open === "minor") return false;
  if (version.minor !== bound.minor) return true;
  return version.prerelease === "" && bound.prerelease === ""
    ? false
    : comparePrereleaseParts(version.prerelease, bound.prerelease) !== 0;
}

/** `>11` begins at 12, and `>11.1` at 11.2. */
function isGreater(version: SemverVersion, constraint: Constraint): boolean {
  const { version: bound, open } = constraint;
  if (open === "none" || open === "major") {
    return compareSemver(version, bound) > 0;
  }
  if (version.major !== bound.major) return version.major > bound.major;
  return open === "patch" && version.minor > bound.minor;
}

/** `<=11` ends before 12, and `<=11.1` before 11.2. */
function isAtMost(version: SemverVersion, constraint: Constraint): boolean {
  const { version: bound, open } = constraint;
  if (open === "none") return compareSemver(version, bound) <= 0;
  if (version.major > bound.major) return false;
  return !(
    version.major === bound.major &&
    version.minor > bound.minor &&
    open !== "minor"
  );
}

function isTildeOrEqual(
  version: SemverVersion,
  constraint: Constraint,
): boolean {
  return constraint.open === "none"
    ? compareSemver(version, constraint.version) === 0
    : isTilde(version, constraint);
}

/** `~1.2.3` ends before 1.3.0, and `~1` before 2.0.0. */
function isTilde(version: SemverVersion, constraint: Constraint): boolean {
  const { version: bound, open } = constraint;
  if (compareSemver(version, bound) < 0) return false;
  const isZero = bound.major === 0n && bound.minor === 0n && bound.patch === 0n;
  // `~0.0.0` is any version, as `*` is.
  if (isZero && open !== "minor" && open !== "patch") return true;
  return (
    version.major === bound.major &&
    (version.minor === bound.minor || open === "minor")
  );
}

/** `^1.2.3` ends before 2.0.0, `^0.2.3` before 0.3.0, and `^0.0.3` before 0.0.4. */
function isCaret(version: SemverVersion, constraint: Constraint): boolean {
  const { version: bound, open } = constraint;
  if (compareSemver(version, bound) < 0) return false;
  if (bound.major > 0n || open === "minor") {
    return version.major === bound.major;
  }
  if (version.major > 0n) return false;
  if (bound.minor > 0n || open === "patch") {
    return version.minor === bound.minor;
  }
  return version.minor === 0n && version.patch === bound.patch;
}
