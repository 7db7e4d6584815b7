/** The remaining quota as a registry states it. */
export interface Budget {
  /** Undefined if only the remaining count is stated. */
  readonly limit: number | undefined;
  readonly remaining: number;
  /** How long the count is valid. */
  readonly windowMs: number;
}

type HeaderOf = (name: string) => string | undefined;

/** A tenth is kept for content that is not cached. */
const SPARED_SHARE = 0.1;
/** Below this share, only content that clients request is fetched. */
const UNASKED_SHARE = 0.5;
/** Used if no window is stated; each answer updates the count anyway. */
const DEFAULT_WINDOW_MS = 3_600_000;
const MAX_WINDOW_MS = 24 * 3_600_000;
/** A reset value from here on is an epoch time (GitLab), not a delta of seconds. */
const FIRST_EPOCH_SECONDS = 1_000_000_000;
const MAX_VALUES = 16;

const NUMBER = /^\d{1,15}$/;

/** One value of a list such as `100, 100;w=21600`. */
interface Quota {
  readonly count: number;
  readonly windowMs: number | undefined;
}

/**
 * Reads the budget from the headers of an answer; undefined if none is stated, as for images without a
 * limit. Supports `ratelimit-limit: 100;w=21600` of Docker Hub, without and with one or several windows,
 * `ratelimit-reset`, and the one-header forms of the later drafts (`ratelimit: limit=100, remaining=50,
 * reset=5` and `ratelimit: "default";r=50;t=30` with its `ratelimit-policy`). Of several windows, the one
 * with the smallest share left counts.
 *
 * @see https://docs.docker.com/docker-hub/usage/pulls/
 * @see https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
 */
export function readBudget(
  header: HeaderOf,
  nowMs: number,
): Budget | undefined {
  const fields = parseFields(header("ratelimit"));
  const remaining = parseQuotas(header("ratelimit-remaining"));
  if (remaining.length === 0) remaining.push(...fields.remaining);
  const limits = [
    ...parseQuotas(header("ratelimit-limit")),
    ...fields.limits,
    ...parsePolicies(header("ratelimit-policy")),
  ];
  const resetMs = resetOf(header("ratelimit-reset"), nowMs) ?? fields.resetMs;
  let lowest: Budget | undefined;
  for (const quota of remaining) {
    const limit =
      limits.find(({ windowMs }) => windowMs === quota.windowMs) ?? limits[0];
    const budget: Budget = {
      limit: limit?.count,
      remaining:
        limit === undefined ? quota.count : Math.min(quota.count, limit.count),
      windowMs: boundedWindow(quota.windowMs ?? resetMs ?? limit?.windowMs),
    };
    if (lowest === undefined || shareLeft(budget) < shareLeft(lowest)) {
      lowest = budget;
    }
  }
  return lowest;
}

/** True if the rest is so small that it is kept for content that is not cached. */
export function isSpared(budget: Budget): boolean {
  return shareLeft(budget) <= SPARED_SHARE;
}

/** True if less than half is left: the rest is kept for requests of clients. */
export function isHalfUsed(budget: Budget): boolean {
  return shareLeft(budget) < UNASKED_SHARE;
}

/** Returns a share from 0 to 1; without a limit, 0 or 1. */
function shareLeft({ limit, remaining }: Budget): number {
  if (limit === undefined) return remaining > 0 ? 1 : 0;
  return limit === 0 ? 0 : remaining / limit;
}

function boundedWindow(windowMs: number | undefined): number {
  return windowMs === undefined || windowMs === 0
    ? DEFAULT_WINDOW_MS
    : Math.min(windowMs, MAX_WINDOW_MS);
}

/** Parses `100;w=21600, 1000;w=86400;comment="x"`; items that do not start with a number are left out. */
function parseQuotas(text: string | undefined): Quota[] {
  return listItems(text).flatMap((item) => {
    const [count = "", ...parameters] = item.split(";");
    const value = parseNumber(count);
    return value === undefined
      ? []
      : [{ count: value, windowMs: windowOf(parameters) }];
  });
}

/** Parses `"default";q=100;w=21600`, or `100;w=21600` of older drafts. */
function parsePolicies(text: string | undefined): Quota[] {
  return listItems(text).flatMap((item) => {
    const [first = "", ...parameters] = item.split(";");
    const count = parseNumber(parameterOf(parameters, "q") ?? first);
    return count === undefined
      ? []
      : [{ count, windowMs: windowOf(parameters) }];
  });
}

/** Parses the one-header forms: fields separated by commas, or by semicolons after a name. */
function parseFields(text: string | undefined): {
  readonly limits: readonly Quota[];
  readonly remaining: readonly Quota[];
  readonly resetMs: number | undefined;
} {
  const parts = listItems(text).flatMap((item) => item.split(";"));
  const valueOf = (...names: string[]): number | undefined =>
    names
      .map((name) => parseNumber(parameterOf(parts, name) ?? ""))
      .find((value) => value !== undefined);
  const resetSeconds = valueOf("reset", "t");
  return {
    limits: withoutWindow(valueOf("limit")),
    remaining: withoutWindow(valueOf("remaining", "r")),
    resetMs: resetSeconds === undefined ? undefined : resetSeconds * 1_000,
  };
}

function withoutWindow(count: number | undefined): readonly Quota[] {
  return count === undefined ? [] : [{ count, windowMs: undefined }];
}

function listItems(text: string | undefined): readonly string[] {
  return (text ?? "").split(",").slice(0, MAX_VALUES);
}

function windowOf(parameters: readonly string[]): number | undefined {
  const seconds = parseNumber(parameterOf(parameters, "w") ?? "");
  return seconds === undefined ? undefined : seconds * 1_000;
}

function parameterOf(
  parameters: readonly string[],
  wanted: string,
): string | undefined {
  for (const parameter of parameters) {
    const [name = "", value] = parameter.split("=");
    if (name.trim().toLowerCase() === wanted) return value;
  }
  return undefined;
}

function resetOf(text: string | undefined, nowMs: number): number | undefined {
  const seconds = parseNumber(listItems(text)[0] ?? "");
  if (seconds === undefined) return undefined;
  return seconds < FIRST_EPOCH_SECONDS
    ? seconds * 1_000
    : Math.max(1_000, seconds * 1_000 - nowMs);
}

function parseNumber(text: string): number | undefined {
  const trimmed = text.trim();
  return NUMBER.test(trimmed) ? Number(trimmed) : undefined;
}
