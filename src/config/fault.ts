/** Where in the configuration: keys and list positions from the root. */
export type KeyPath = readonly (string | number)[];

/** Something in the configuration that is wrong (a fault) or worth a word (a warning). */
export interface ConfigFault {
  /** The file as it was named, or the environment variable that gave the value. */
  readonly file: string;
  /** From 1; undefined where the fault has no line (a missing file, a variable). */
  readonly line: number | undefined;
  /** As in `upstreams.quay.io.endpoints[0]`; empty where the fault is not about a key. */
  readonly path: string;
  /** Never holds a secret. */
  readonly seen: string;
  readonly expected: string;
}

/** One line: `FILE:LINE: key.path: what was seen; what is right`, without the parts that are not known. */
export function formatFault(fault: ConfigFault): string {
  const line = fault.line === undefined ? "" : `:${fault.line}`;
  const path = fault.path === "" ? "" : `${fault.path}: `;
  return `${fault.file}${line}: ${path}${fault.seen}; ${fault.expected}`;
}

/** Keys that would break the line, or the terminal, are shown in quotes with escapes. */
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

/** What a value looks like in a fault: short, on one line, without control characters. */
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

/** Like {@link formatSeen}, but only the kind of the value, for places that hold secrets. */
export function formatKind(value: unknown): string {
  if (value === undefined || value === null) return "no value";
  if (Array.isArray(value))
    return value.length === 0 ? "an empty list" : "a list";
  return KINDS[typeof value] ?? "no value";
}

/** A user name and what follows it up to the host, wherever somebody wrote it: in a URL, or before a bare host. */
const LOGIN = /(:\/\/).*@|^[^/@]*:[^/@]*@/s;

/** No place is made for a password but its own, and a fault goes to the log and the audit. */
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
