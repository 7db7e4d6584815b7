/** What a registry says of how much may still be asked. */
export interface Budget {
  /** Undefined where only the rest was told. */
  readonly limit: number | undefined;
  readonly remaining: number;
  /** How long the count holds. */
  readonly windowMs: number;
}

type HeaderOf = (name: string) => string | undefined;

/** A tenth is kept for what nobody has cached. */
const SPARED_SHARE = 0.1;
/** Below it nothing is fetched that no client asked for. */
const UNASKED_SHARE = 0.5;
/** Where no window is told; each answer tells the count anew anyway. */
const DEFAULT_WINDOW_MS = 3_600_000;
const MAX_WINDOW_MS = 24 * 3_600_000;
/** No delta of seconds is as large: then it is a time (GitLab). */
const FIRST_EPOCH_SECONDS = 1_000_000_000;
const MAX_VALUES = 16;

const NUMBER = /^\d{1,15}$/;

/** One value of a list such as `100, 100;w=21600`. */
interface Quota {
  readonly count: number;
  readonly windowMs: number | undefined;
}

/**
 * Reads the budget of an answer, in whatever spelling: `ratelimit-limit: 100;w=21600` of Docker
 * Hub, with and without windows and with several of them, `ratelimit-reset`, and the one-header
 * forms of the later drafts (`ratelimit: limit=100, remaining=50, reset=5` and
 * `ratelimit: "default";r=50;t=30` with its `ratelimit-policy`). Of several windows the one that
 * is nearest to its end counts.
 *
 * @returns undefined where nothing usable is told, as of images without a limit
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

/** Whether so little is left that it is kept for what cannot be answered otherwise. */
export function isSpared(budget: Budget): boolean {
  return shareLeft(budget) <= SPARED_SHARE;
}

/** Whether less than half is left: the rest is for what clients ask for. */
export function isHalfUsed(budget: Budget): boolean {
  return shareLeft(budget) < UNASKED_SHARE;
}

/** From 0 to 1; without a limit all or nothing. */
function shareLeft({ limit, remaining }: Budget): number {
  if (limit === undefined) return remaining > 0 ? 1 : 0;
  return limit === 0 ? 0 : remaining / limit;
}

function boundedWindow(windowMs: number | undefined): number {
  return windowMs === undefined || windowMs === 0
    ? DEFAULT_WINDOW_MS
    : Math.min(windowMs, MAX_WINDOW_MS);
}

/** `100;w=21600, 1000;w=86400;comment="x"`: what is no number with parameters is left out. */
function parseQuotas(text: string | undefined): Quota[] {
  return listItems(text).flatMap((item) => {
    const [count = "", ...parameters] = item.split(";");
    const value = parseNumber(count);
    return value === undefined
      ? []
      : [{ count: value, windowMs: windowOf(parameters) }];
  });
}

/** `"default";q=100;w=21600`, or `100;w=21600` of older drafts. */
function parsePolicies(text: string | undefined): Quota[] {
  return listItems(text).flatMap((item) => {
    const [first = "", ...parameters] = item.split(";");
    const count = parseNumber(parameterOf(parameters, "q") ?? first);
    return count === undefined
      ? []
      : [{ count, windowMs: windowOf(parameters) }];
  });
}

/** The one-header forms: their values may be parted by commas or stand behind a name. */
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
