/** A parsed table, for example `{ registry: { "docker.io": { mirrors: […] } } }`. */
export type TomlTable = Map<string, unknown>;

/**
 * Parses the subset of TOML that configurations of engines use: tables, arrays of tables, and values
 * that are written as in JSON.
 *
 * @throws Error for a line of another kind, or a duplicate key
 */
export function parseSimpleToml(text: string): TomlTable {
  const root: TomlTable = new Map();
  let table = root;
  for (const line of text.split("\n")) {
    const trimmed = line.trim();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const header = /^(\[\[?)(.+?)(\]\]?)$/.exec(trimmed);
    const pair = /^([A-Za-z0-9_-]+) = (.+)$/.exec(trimmed);
    if (header !== null) {
      const [, open, path = "", close] = header;
      if (open?.length !== close?.length) throw new Error(line);
      table = openTable(root, parsePath(path), open === "[[");
    } else if (pair !== null) {
      const [, key = "", value = ""] = pair;
      if (table.has(key)) throw new Error(`twice: ${line}`);
      table.set(key, JSON.parse(value));
    } else {
      throw new Error(`no TOML that is known here: ${line}`);
    }
  }
  return root;
}

/** Splits a dotted key: `host."a.b"` into `host` and `a.b`. */
function parsePath(path: string): string[] {
  const parts = path.match(/"[^"]+"|[A-Za-z0-9_-]+/g) ?? [];
  if (parts.join(".") !== path) throw new Error(`no key: ${path}`);
  return parts.map((part) => part.replaceAll('"', ""));
}

function openTable(
  root: TomlTable,
  path: readonly string[],
  isInArray: boolean,
): TomlTable {
  let table = root;
  for (const [index, key] of path.entries()) {
    const isLast = index === path.length - 1;
    const known = table.get(key);
    if (isLast && isInArray) {
      const array = Array.isArray(known) ? (known as TomlTable[]) : [];
      array.push(new Map());
      table.set(key, array);
    } else if (known === undefined) {
      table.set(key, new Map());
    } else if (isLast) {
      throw new Error(`twice: ${path.join(".")}`);
    }
    const found = table.get(key);
    const next: unknown = Array.isArray(found) ? found.at(-1) : found;
    if (!(next instanceof Map)) throw new Error(`no table: ${key}`);
    table = next as TomlTable;
  }
  return table;
}

/** Converts maps to plain objects, for comparisons. */
export function tomlToJson(value: unknown): unknown {
  if (value instanceof Map) {
    return Object.fromEntries(
      [...value].map(([key, item]) => [key, tomlToJson(item)] as const),
    );
  }
  return Array.isArray(value) ? value.map(tomlToJson) : value;
}
