import type * as Yaml from "yaml";
import type { KeyPath } from "./fault.ts";

/** Where each key and list item of a file begins. */
export interface LineTree {
  readonly line: number;
  readonly children: ReadonlyMap<string | number, LineTree>;
}

export interface YamlFault {
  readonly line: number;
  readonly path: KeyPath;
  readonly seen: string;
  readonly expected: string;
}

export interface YamlSource {
  /** Objects without prototype, lists, texts, numbers, booleans, null; undefined where the file holds nothing. */
  readonly value: unknown;
  readonly lines: LineTree;
  /** Where there are any, the value is not to be used. */
  readonly faults: readonly YamlFault[];
}

/** Far above any real configuration, far below what a stack or a validator suffers from. */
const MAX_DEPTH = 32;
/** Values after aliases are followed: an alias bomb multiplies these, not the bytes of the file. */
const MAX_VALUES = 100_000;
const MAX_FAULTS = 20;

/**
 * Syntax faults in words of our own: the library's messages may quote the file, and the file may
 * hold a password (`password: !x` is "Unresolved tag: !x").
 */
const SYNTAX_FAULTS: Readonly<Record<string, readonly [string, string]>> = {
  BAD_ALIAS: [
    "a bad alias",
    "*NAME of an anchor above; a text with * goes in quotes",
  ],
  BAD_DIRECTIVE: ["an unknown directive", "YAML 1.2 without directives"],
  BAD_DQ_ESCAPE: [
    "an unknown escape in a text in double quotes",
    "\\\\ for a backslash, or single quotes",
  ],
  BAD_INDENT: [
    "wrong indentation",
    "the keys of a mapping begin at the same column",
  ],
  BAD_SCALAR_START: [
    "a text that begins with a character of YAML's own",
    "the text in quotes",
  ],
  BLOCK_AS_IMPLICIT_KEY: [
    "a mapping where none can be",
    "one `key: value` a line; a text with a colon goes in quotes",
  ],
  MISSING_CHAR: [
    "something is missing",
    "quotes and brackets are closed, and a colon follows each key",
  ],
  MULTILINE_IMPLICIT_KEY: ["a line without a key", "`key: value` on one line"],
  MULTIPLE_DOCS: ["a second document", "one document a file"],
  NON_STRING_KEY: ["a key that is no text", "plain keys"],
  RESOURCE_EXHAUSTION: ["nested too deep", `at most ${MAX_DEPTH} levels`],
  TAB_AS_INDENT: ["a tab as indentation", "spaces"],
  TAG_RESOLVE_FAILED: ["a tag", "no tags; a text with ! goes in quotes"],
  UNEXPECTED_TOKEN: [
    "something that does not belong there",
    'quotes around a text with brackets, commas or colons, such as "[::1]:5000"',
  ],
};

/** Reads YAML 1.2. Loads the parser, which costs memory that a start without a file need not pay. */
export async function readYaml(text: string): Promise<YamlSource> {
  const yaml = await import("yaml");
  const lineCounter = new yaml.LineCounter();
  const lineAt = (offset: number): number => lineCounter.linePos(offset).line;
  const document = yaml.parseDocument(text, {
    lineCounter,
    prettyErrors: false,
    stringKeys: true,
    resolveKnownTags: false,
    // The library compares each key with each other: 78 s for 70 000 keys. The reader below uses a set.
    uniqueKeys: false,
    logLevel: "error",
  });
  const faults: YamlFault[] = [];
  for (const error of [...document.errors, ...document.warnings]) {
    const [seen, expected] = SYNTAX_FAULTS[error.code] ?? [
      "not YAML",
      "YAML 1.2",
    ];
    faults.push({ line: lineAt(error.pos[0]), path: [], seen, expected });
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

/** What stands for the lines of a file that could not be read. */
const NO_LINES: LineTree = { line: 1, children: new Map() };

/** The line of the longest part of the path that is in the file. */
export function lineOf(lines: LineTree, path: KeyPath): number {
  let place = lines;
  for (const part of path) {
    const next = place.children.get(part);
    if (next === undefined) break;
    place = next;
  }
  return place.line;
}

/** One mistake is often told several times on its line; the first is the nearest to the cause. */
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
  /** How many values it is, aliases followed. */
  readonly count: number;
}

/** Turns nodes into values in one walk with bounds, noting lines and duplicate keys on the way. */
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
      return this.#refuse(line, path, "nested too deep", "fewer levels");
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
        this.#refuse(
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
    // Noted only once it is whole, so that an anchor that holds itself is unknown here.
    const read = this.#anchors.get(node.source);
    if (read === undefined) {
      return this.#refuse(
        line,
        path,
        "an alias without its anchor",
        "quotes around a text that begins with *",
      );
    }
    this.#valueCount += read.count;
    return this.#valueCount > MAX_VALUES
      ? this.#refuse(line, path, "too many aliases", "fewer")
      : read;
  }

  #remember(node: { readonly anchor?: string }, read: ReadValue): ReadValue {
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, read);
    return read;
  }

  #refuse(
    line: number,
    path: KeyPath,
    seen: string,
    expected: string,
  ): ReadValue {
    if (this.faults.length < MAX_FAULTS) {
      this.faults.push({ line, path, seen, expected });
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
