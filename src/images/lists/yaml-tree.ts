import {
  type Alias,
  Composer,
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  Parser,
  type Scalar,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import { describeSyntaxFault } from "../../config/yaml-source.ts";

/** A value of a YAML document with the line that it begins on. All scalars are texts, as they are written. */
export type YamlTree = YamlText | YamlNull | YamlList | YamlMap;

export interface YamlText {
  readonly kind: "text";
  readonly line: number;
  readonly text: string;
}

export interface YamlNull {
  readonly kind: "null";
  readonly line: number;
}

export interface YamlList {
  readonly kind: "list";
  readonly line: number;
  readonly items: readonly YamlTree[];
}

export interface YamlMap {
  readonly kind: "map";
  readonly line: number;
  readonly entries: ReadonlyMap<string, YamlEntry>;
}

export interface YamlEntry {
  /** Of the key. */
  readonly line: number;
  readonly value: YamlTree;
}

export interface YamlTreeFault {
  readonly line: number;
  readonly message: string;
}

/** Real manifests stay below 30. */
const MAX_DEPTH = 100;
/** Counted after aliases are resolved, in all documents together: an alias bomb multiplies the values. */
const MAX_VALUES = 1_000_000;
const MAX_DOCUMENTS = 10_000;

/** As Go's YAML libraries read an unquoted text. */
const NULLS: ReadonlySet<string> = new Set(["", "~", "null", "Null", "NULL"]);

/**
 * Reads the documents of a YAML or JSON text one after the other, with merge keys (`<<`), as Go's
 * libraries do. A document with a fault yields nothing, and ends the reading: the parser cannot know
 * where the next one begins.
 */
export function* readYamlTrees(
  text: string,
  fault: (fault: YamlTreeFault) => void,
): Generator<YamlTree> {
  const lines = new LineCounter();
  const parser = new Parser(lines.addNewLine);
  const composer = new Composer({
    schema: "failsafe",
    stringKeys: true,
    // The library compares all pairs of keys; the reader below uses a map.
    uniqueKeys: false,
    prettyErrors: false,
    logLevel: "error",
  });
  const budget = { values: MAX_VALUES };
  let count = 0;
  for (const document of composer.compose(parser.parse(text))) {
    count += 1;
    const reader = new TreeReader(lines, budget, new Map());
    const tree =
      count > MAX_DOCUMENTS
        ? new TreeFault(1, `got more than ${MAX_DOCUMENTS} documents`)
        : reader.readDocument(document);
    if (tree instanceof TreeFault) {
      fault(tree);
      return;
    }
    yield tree;
  }
}

/** The value of a key; undefined if the tree is not a mapping or has no such key. */
export function yamlValue(
  tree: YamlTree | undefined,
  ...keys: readonly string[]
): YamlTree | undefined {
  let value = tree;
  for (const key of keys) {
    if (value?.kind !== "map") return undefined;
    value = value.entries.get(key)?.value;
  }
  return value;
}

/** The text of a key; undefined if there is none, or its value is not a text. */
export function yamlText(
  tree: YamlTree | undefined,
  ...keys: readonly string[]
): string | undefined {
  const value = yamlValue(tree, ...keys);
  return value?.kind === "text" ? value.text : undefined;
}

class TreeFault extends Error {
  readonly line: number;

  constructor(line: number, message: string) {
    super(message);
    this.line = line;
  }
}

interface ReadTree {
  readonly tree: YamlTree;
  /** The number of values in it, aliases resolved. */
  readonly count: number;
}

/** Turns the nodes of one document into a tree in one bounded walk. */
class TreeReader {
  readonly #lines: LineCounter;
  readonly #budget: { values: number };
  readonly #anchors: Map<string, ReadTree>;

  /** @param anchors of this document, none yet */
  constructor(
    lines: LineCounter,
    budget: { values: number },
    anchors: Map<string, ReadTree>,
  ) {
    this.#lines = lines;
    this.#budget = budget;
    this.#anchors = anchors;
  }

  readDocument(document: Document): YamlTree | TreeFault {
    const error = document.errors[0];
    if (error !== undefined) {
      // Without the library's message, which may quote a password of the list.
      const [seen, expected, fix] = describeSyntaxFault(error.code);
      return new TreeFault(
        this.#lineAt(error.pos[0]),
        `got ${seen}; expected ${expected}${fix === undefined ? "" : ` (${fix})`}`,
      );
    }
    try {
      return this.#read(document.contents, 1, 0).tree;
    } catch (thrown) {
      if (thrown instanceof TreeFault) return thrown;
      throw thrown;
    }
  }

  /** @param line of the key or dash before the node, for a node that is not written */
  #read(node: unknown, line: number, depth: number): ReadTree {
    if (isAlias(node)) return this.#readAlias(node, line);
    this.#spend(1, line);
    if (depth > MAX_DEPTH) {
      throw new TreeFault(
        line,
        `got deeper nesting than ${MAX_DEPTH} levels; expected a list of images`,
      );
    }
    if (isMap(node)) return this.#remember(node, this.#readMap(node, depth));
    if (isSeq(node)) return this.#remember(node, this.#readSeq(node, depth));
    if (isScalar(node)) return this.#remember(node, this.#readScalar(node));
    return { tree: { kind: "null", line }, count: 1 };
  }

  #readScalar(node: Scalar): ReadTree {
    const line = this.#lineOf(node, 1);
    const text = typeof node.value === "string" ? node.value : "";
    const isNull = node.type === "PLAIN" && NULLS.has(text);
    const tree: YamlTree = isNull
      ? { kind: "null", line }
      : { kind: "text", line, text };
    return { tree, count: 1 };
  }

  #readSeq(node: YAMLSeq, depth: number): ReadTree {
    const line = this.#lineOf(node, 1);
    const items: YamlTree[] = [];
    let count = 1;
    for (const item of node.items) {
      const read = this.#read(item, this.#lineOf(item, line), depth + 1);
      items.push(read.tree);
      count += read.count;
    }
    return { tree: { kind: "list", line, items }, count };
  }

  #readMap(node: YAMLMap, depth: number): ReadTree {
    const line = this.#lineOf(node, 1);
    const entries = new Map<string, YamlEntry>();
    const merged: YamlTree[] = [];
    let count = 1;
    for (const pair of node.items) {
      const keyLine = this.#lineOf(pair.key, line);
      const key = isScalar(pair.key) ? String(pair.key.value) : "";
      const earlier = entries.get(key);
      if (earlier !== undefined) {
        throw new TreeFault(
          keyLine,
          `got the key ${JSON.stringify(key)} of line ${earlier.line} again; expected each key once`,
        );
      }
      const read = this.#read(pair.value, keyLine, depth + 1);
      count += read.count;
      if (isScalar(pair.key) && pair.key.type === "PLAIN" && key === "<<") {
        merged.push(read.tree);
      } else {
        entries.set(key, { line: keyLine, value: read.tree });
      }
    }
    for (const tree of merged) count += this.#merge(tree, entries);
    return { tree: { kind: "map", line, entries }, count };
  }

  /** Adds the keys of a merged mapping that are not written beside it. @returns how many were added */
  #merge(tree: YamlTree, entries: Map<string, YamlEntry>): number {
    let added = 0;
    for (const source of tree.kind === "list" ? tree.items : [tree]) {
      if (source.kind !== "map") {
        throw new TreeFault(
          source.line,
          "got a merge key with another value; expected an alias of a mapping, or a list of them",
        );
      }
      for (const [key, entry] of source.entries) {
        if (entries.has(key)) continue;
        entries.set(key, entry);
        added += 1;
      }
    }
    return added;
  }

  #readAlias(node: Alias, line: number): ReadTree {
    // Remembered only when complete, so that an anchor that contains itself is unknown here.
    const read = this.#anchors.get(node.source);
    if (read === undefined) {
      throw new TreeFault(
        this.#lineOf(node, line),
        "got an alias without its anchor; expected the *NAME of an anchor above (quote a text with *)",
      );
    }
    this.#spend(read.count, line);
    return read;
  }

  #remember(node: { readonly anchor?: string }, read: ReadTree): ReadTree {
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, read);
    return read;
  }

  #spend(values: number, line: number): void {
    this.#budget.values -= values;
    if (this.#budget.values >= 0) return;
    throw new TreeFault(
      line,
      `got more than ${MAX_VALUES} values, aliases resolved; expected several lists`,
    );
  }

  #lineOf(node: unknown, otherwise: number): number {
    const offset = isNode(node) ? node.range?.[0] : undefined;
    return offset === undefined ? otherwise : this.#lineAt(offset);
  }

  #lineAt(offset: number): number {
    return Math.max(1, this.#lines.linePos(offset).line);
  }
}
