import type { MergedText } from "./client-setup.ts";

/** What dockerd needs to know about the mirror. */
export interface DaemonKeys {
  /** `registry-mirrors`, used first. */
  readonly mirrors: readonly string[];
  /** `insecure-registries`. */
  readonly insecure: readonly string[];
  /** The hosts of the mirror: older entries with one of them are replaced. */
  readonly hosts: readonly string[];
}

const MIRRORS = "registry-mirrors";
const INSECURE = "insecure-registries";

type JsonObject = Readonly<Record<string, unknown>>;
type Format = (value: JsonObject) => string;

/**
 * Merges the mirror into dockerd's configuration. Every other key and every entry of another host is
 * kept, in its order; entries of this mirror are replaced. The layout is kept if it is one of the
 * usual ones.
 *
 * @param current undefined if there is no file
 */
export function mergeDaemonJson(
  current: undefined,
  keys: DaemonKeys,
): Extract<MergedText, { isMerged: true }>;
export function mergeDaemonJson(
  current: string | undefined,
  keys: DaemonKeys,
): MergedText;
export function mergeDaemonJson(
  current: string | undefined,
  keys: DaemonKeys,
): MergedText {
  const isEmpty = current === undefined || current.trim() === "";
  const parsed = isEmpty ? {} : parseObject(current);
  if (parsed === undefined) {
    return refuse("invalid JSON; expected a JSON object");
  }
  const mirrors = listAt(parsed, MIRRORS);
  const insecure = listAt(parsed, INSECURE);
  if (mirrors === undefined) {
    return refuse(`${MIRRORS} of another type; expected a list of texts`);
  }
  if (insecure === undefined) {
    return refuse(`${INSECURE} of another type; expected a list of texts`);
  }
  const isOther = (entry: string): boolean =>
    !keys.hosts.includes(hostOf(entry));
  const merged = {
    ...parsed,
    [MIRRORS]: [...keys.mirrors, ...mirrors.filter(isOther)],
    [INSECURE]: [...insecure.filter(isOther), ...keys.insecure],
  };
  const used = Object.fromEntries(
    Object.entries(merged).filter(
      ([key, value]) =>
        !(key === MIRRORS || key === INSECURE) ||
        (Array.isArray(value) && value.length > 0) ||
        key in parsed,
    ),
  );
  if (!isEmpty && JSON.stringify(used) === JSON.stringify(parsed)) {
    return { isMerged: true, text: current };
  }
  const format = isEmpty ? LAYOUTS[0] : layoutOf(current, parsed);
  return { isMerged: true, text: format(used) };
}

function refuse(got: string): MergedText {
  return { isMerged: false, flaw: `got ${got}` };
}

function parseObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as JsonObject)
      : undefined;
  } catch {
    return undefined;
  }
}

function listAt(
  object: JsonObject,
  key: string,
): readonly string[] | undefined {
  const value = object[key] ?? [];
  return Array.isArray(value) && value.every((one) => typeof one === "string")
    ? value
    : undefined;
}

/** Returns the host and port of an entry of either list, as they are written. */
export function hostOf(entry: string): string {
  return entry
    .toLowerCase()
    .replace(/^https?:\/\//, "")
    .replace(/\/.*$/, "");
}

/** Lists of texts on one line, as in deploy/clients; then those that programs write. */
const LAYOUTS: readonly [Format, ...Format[]] = [
  inLines,
  ...["  ", "    ", "\t"].map(
    (indent): Format =>
      (value) =>
        `${JSON.stringify(value, undefined, indent)}\n`,
  ),
];

function inLines(value: JsonObject): string {
  const text = JSON.stringify(value, undefined, 2);
  const joined = text.replace(
    /\[\n\s+("(?:[^"\\]|\\.)*"(?:,\n\s+"(?:[^"\\]|\\.)*")*)\n\s*\]/g,
    (_list, items: string) => `[${items.replace(/,\n\s+/g, ", ")}]`,
  );
  return `${joined}\n`;
}

function layoutOf(text: string, parsed: JsonObject): Format {
  return (
    LAYOUTS.find((format) => format(parsed).trim() === text.trim()) ??
    LAYOUTS[0]
  );
}
