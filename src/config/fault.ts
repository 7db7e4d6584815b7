/** A place in the configuration: keys and list positions from the root. */
export type KeyPath = readonly (string | number)[];

/** The text of a fault, in parts; {@link formatFlaw} puts them together. */
export interface Flaw {
  /** The value or the condition that was found; never a secret. */
  readonly seen: string;
  readonly expected: string;
  /** A way to repair it, if the expectation does not say it. */
  readonly fix?: string | undefined;
}

/** A flaw whose place is known by keys; the caller knows the file and the line of them. */
export interface PlacedFault extends Flaw {
  readonly path: KeyPath;
}

/** An invalid part of the configuration (a fault), or a valid but risky one (a warning). */
export interface ConfigFault extends Flaw {
  /** The file as it was named, or the environment variable that gave the value. */
  readonly file: string;
  /** From 1; undefined if the fault has no line (a missing file, a variable). */
  readonly line: number | undefined;
  /** As in `upstreams.quay.io.endpoints[0]`; empty if the fault is not about a key. */
  readonly path: string;
}

/** Returns one line: `FILE:LINE: key.path: got X; expected Y; FIX`, without the unknown parts. */
export function formatFault(fault: ConfigFault): string {
  const line = fault.line === undefined ? "" : `:${fault.line}`;
  const path = fault.path === "" ? "" : `${fault.path}: `;
  return `${fault.file}${line}: ${path}${formatFlaw(fault)}`;
}

/** Returns `got X; expected Y; FIX`. */
export function formatFlaw({ seen, expected, fix }: Flaw): string {
  return `got ${seen}; expected ${expected}${fix === undefined ? "" : `; ${fix}`}`;
}

/** Returns a key path as text. Keys that would break the line or the terminal are quoted and escaped. */
export function formatKeyPath(path: KeyPath): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += `${text === "" ? "" : "."}${formatKey(part)}`;
  }
  return text;
}

function formatKey(key: string): string {
  return /^[^\s"\p{C}]+$/u.test(key) ? shorten(hideLogin(key)) : quote(key);
}

/** Returns a value as faults show it: short, on one line, without control characters. */
export function formatSeen(value: unknown): string {
  if (typeof value === "string") return quote(value);
  return typeof value === "number" || typeof value === "boolean"
    ? String(value)
    : formatKind(value);
}

const KINDS: Readonly<Partial<Record<string, string>>> = {
  string: "a text",
  number: "a number",
  boolean: "true or false",
  object: "a mapping",
};

/** Returns only the kind of a value, for places that hold secrets. */
export function formatKind(value: unknown): string {
  if (value === undefined || value === null) return "no value";
  if (Array.isArray(value))
    return value.length === 0 ? "an empty list" : "a list";
  return KINDS[typeof value] ?? "no value";
}

/** A user name and the text after it up to the host, in a URL or before a bare host. */
const LOGIN = /(:\/\/).*@|^[^/@]*:[^/@]*@/s;

/** Hides passwords that were written outside their own keys: faults go to the log and the audit. */
function hideLogin(text: string): string {
  return text.replace(LOGIN, "$1[redacted]@");
}

const MAX_SHOWN_LENGTH = 80;

function shorten(text: string): string {
  return text.length > MAX_SHOWN_LENGTH
    ? `${text.slice(0, MAX_SHOWN_LENGTH)}…`
    : text;
}

function quote(text: string): string {
  return JSON.stringify(shorten(hideLogin(text))).replace(
    /[\p{Cc}\p{Cf}\u2028\u2029]/gu,
    (character) =>
      `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
