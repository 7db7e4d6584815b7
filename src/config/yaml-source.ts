import type * as Yaml from "yaml";
import type { KeyPath, PlacedFault } from "./fault.ts";

/** The line of each key and list item of a file. */
export interface LineTree {
  readonly line: number;
  readonly children: ReadonlyMap<string | number, LineTree>;
}

export interface YamlFault extends PlacedFault {
  readonly line: number;
}

export interface YamlSource {
  /** Objects without prototype, lists, texts, numbers, booleans, null; undefined if the file is empty. */
  readonly value: unknown;
  readonly lines: LineTree;
  /** If there are any, the value must not be used. */
  readonly faults: readonly YamlFault[];
}

/** Far above any real configuration, far below the limits of the stack and the validator. */
const MAX_DEPTH = 32;
/** Counted after aliases are resolved: an alias bomb multiplies the values, not the bytes of the file. */
const MAX_VALUES = 100_000;
const MAX_FAULTS = 20;

/** A fix for texts with characters that YAML reserves. */
const QUOTE = "quote a text with * ! or a colon";

/**
 * Syntax faults: seen, expected, fix. The library's messages are not used, since they may quote the
 * file and the file may hold a password (`password: !x` is "Unresolved tag: !x").
 */
const SYNTAX_FAULTS: Readonly<
  Record<string, readonly [string, string, string?]>
> = {
  BAD_ALIAS: ["an invalid alias", "the *NAME of an anchor above", QUOTE],
  BAD_DIRECTIVE: ["an unknown directive", "YAML 1.2 without directives"],
  BAD_DQ_ESCAPE: [
    "an unknown escape in double quotes",
    "\\\\ for a backslash, or single quotes",
  ],
  BAD_INDENT: ["wrong indentation", "all keys of a mapping in the same column"],
  BAD_SCALAR_START: [
    "a text that begins with a YAML indicator",
    "the text in quotes",
  ],
  BLOCK_AS_IMPLICIT_KEY: [
    "a mapping inside a value",
    "one `key: value` per line",
    QUOTE,
  ],
  MISSING_CHAR: [
    "an open quote or bracket, or a key without a colon",
    "closed quotes and brackets, and a colon after each key",
  ],
  MULTILINE_IMPLICIT_KEY: ["a line without a key", "`key: value` on one line"],
  MULTIPLE_DOCS: ["a second document", "one document per file"],
  NON_STRING_KEY: ["a key that is not a text", "plain keys"],
  RESOURCE_EXHAUSTION: [
    "deeper nesting than any key needs",
    `at most ${MAX_DEPTH} levels`,
  ],
  TAB_AS_INDENT: ["a tab as indentation", "spaces"],
  TAG_RESOLVE_FAILED: ["a tag", "a value without tags", QUOTE],
  UNEXPECTED_TOKEN: [
    "an unexpected character",
    "`key: value`",
    'quote a text with brackets, commas or colons, such as "[::1]:5000"',
  ],
};

/** Returns what the library found and what it expected instead, and a fix, without a word of the file. */
export function describeSyntaxFault(
  code: string,
): readonly [string, string, string?] {
  return SYNTAX_FAULTS[code] ?? ["a syntax error", "YAML 1.2"];
}

/** Reads YAML 1.2. Loads the parser only here, since it costs memory that a start without a file saves. */
export async function readYaml(text: string): Promise<YamlSource> {
  const yaml = await import("yaml");
  const lineCounter = new yaml.LineCounter();
  const lineAt = (offset: number): number => lineCounter.linePos(offset).line;
  const document = yaml.parseDocument(text, {
    lineCounter,
    prettyErrors: false,
    stringKeys: true,
    resolveKnownTags: false,
    // The library compares all pairs of keys: 78 s for 70 000 keys. The reader below uses a map.
    uniqueKeys: false,
    logLevel: "error",
  });
  const faults: YamlFault[] = [];
  for (const error of [...document.errors, ...document.warnings]) {
    const [seen, expected, fix] = describeSyntaxFault(error.code);
    faults.push({ line: lineAt(error.pos[0]), path: [], seen, expected, fix });
  }
  if (document.directives?.yaml.version === "1.1") {
    faults.push({ line: 1, path: [], seen: "YAML 1.1", expected: "YAML 1.2" });
  }
  if (faults.length > 0) {
    return {
      value: undefined,
      lines: NO_LINES,
      faults: firstOfEachLine(faults),
    };
  }
  const reader = new NodeReader(yaml, lineAt);
  const { value, lines } = reader.read(document.contents, [], 1);
  return { value: value ?? undefined, lines, faults: reader.faults };
}

/** The lines of a file that could not be parsed. */
const NO_LINES: LineTree = { line: 1, children: new Map() };

/** Returns the line of the longest part of the path that is in the file. */
export function lineOf(lines: LineTree, path: KeyPath): number {
  let place = lines;
  for (const part of path) {
    const next = place.children.get(part);
    if (next === undefined) break;
    place = next;
  }
  return place.line;
}

/** One mistake often causes several faults on its line; the first is the nearest to the cause. */
function firstOfEachLine(faults: readonly YamlFault[]): YamlFault[] {
  const byLine = new Map<number, YamlFault>();
  for (const fault of faults) {
    if (!byLine.has(fault.line)) byLine.set(fault.line, fault);
  }
  return [...byLine.values()].slice(0, MAX_FAULTS);
}

interface ReadValue {
  readonly value: unknown;
  readonly lines: LineTree;
  /** The number of values in it, aliases resolved. */
  readonly count: number;
}

/** Turns nodes into values in one bounded walk, which also records lines and duplicate keys. */
class NodeReader {
  readonly faults: YamlFault[] = [];
  readonly #yaml: typeof Yaml;
  readonly #lineAt: (offset: number) => number;
  readonly #anchors = new Map<string, ReadValue>();
  #valueCount = 0;

  constructor(yaml: typeof Yaml, lineAt: (offset: number) => number) {
    this.#yaml = yaml;
    this.#lineAt = lineAt;
  }

  /** @param line of the key or dash before the node, for a node that is not written */
  read(node: unknown, path: KeyPath, line: number): ReadValue {
    const { isAlias, isMap, isSeq, isScalar } = this.#yaml;
    if (isAlias(node)) return this.#readAlias(node, path, line);
    this.#valueCount += 1;
    if (path.length > MAX_DEPTH) {
      return this.#reject(
        line,
        path,
        "deeper nesting than any key needs",
        `at most ${MAX_DEPTH} levels`,
      );
    }
    if (isMap(node)) return this.#remember(node, this.#readMap(node, path));
    if (isSeq(node)) return this.#remember(node, this.#readSeq(node, path));
    if (isScalar(node)) return this.#remember(node, leaf(node.value, line));
    return leaf(null, line);
  }

  #readMap(node: Yaml.YAMLMap, path: KeyPath): ReadValue {
    // Without a prototype a key named __proto__ is a key like any other.
    const value = Object.create(null) as Record<string, unknown>;
    const children = new Map<string | number, LineTree>();
    const line = this.#lineOf(node);
    let count = 1;
    for (const pair of node.items) {
      const key = this.#yaml.isScalar(pair.key) ? String(pair.key.value) : "";
      const keyPath = [...path, key];
      const keyLine = this.#lineOf(pair.key, line);
      const earlier = children.get(key);
      if (earlier !== undefined) {
        this.#reject(
          keyLine,
          keyPath,
          `the same key as in line ${earlier.line}`,
          "each key once",
        );
        continue;
      }
      const read = this.read(pair.value, keyPath, keyLine);
      value[key] = read.value;
      children.set(key, { line: keyLine, children: read.lines.children });
      count += read.count;
    }
    return { value, lines: { line, children }, count };
  }

  #readSeq(node: Yaml.YAMLSeq, path: KeyPath): ReadValue {
    const line = this.#lineOf(node);
    const children = new Map<string | number, LineTree>();
    const value: unknown[] = [];
    let count = 1;
    for (const [index, item] of node.items.entries()) {
      const itemLine = this.#lineOf(item, line);
      const read = this.read(item, [...path, index], itemLine);
      value.push(read.value);
      children.set(index, { line: itemLine, children: read.lines.children });
      count += read.count;
    }
    return { value, lines: { line, children }, count };
  }

  #readAlias(node: Yaml.Alias, path: KeyPath, line: number): ReadValue {
    // Recorded only when complete, so that an anchor that contains itself is unknown here.
    const read = this.#anchors.get(node.source);
    if (read === undefined) {
      return this.#reject(
        line,
        path,
        "an alias without its anchor",
        "the *NAME of an anchor above",
        QUOTE,
      );
    }
    this.#valueCount += read.count;
    return this.#valueCount > MAX_VALUES
      ? this.#reject(
          line,
          path,
          "too many values through aliases",
          `at most ${MAX_VALUES}`,
        )
      : read;
  }

  #remember(node: { readonly anchor?: string }, read: ReadValue): ReadValue {
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, read);
    return read;
  }

  #reject(
    line: number,
    path: KeyPath,
    seen: string,
    expected: string,
    fix?: string,
  ): ReadValue {
    if (this.faults.length < MAX_FAULTS) {
      this.faults.push({ line, path, seen, expected, fix });
    }
    return leaf(null, line);
  }

  #lineOf(node: unknown, otherwise = 1): number {
    const offset = this.#yaml.isNode(node) ? node.range?.[0] : undefined;
    return offset === undefined ? otherwise : this.#lineAt(offset);
  }
}

function leaf(value: unknown, line: number): ReadValue {
  return { value, lines: { line, children: new Map() }, count: 1 };
}
