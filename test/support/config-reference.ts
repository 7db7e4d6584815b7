import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { format } from "prettier";
import { stringify } from "yaml";
import { scalarPaths } from "../../src/config/environment.ts";
import type { SchemaNode } from "../../src/config/schema/schema-node.ts";
import { CONFIG_SCHEMA } from "../../src/config/schema/schema.ts";

/**
 * What `config/` publishes of the schema. Run as a program it writes both files again:
 * `npx node test/support/config-reference.ts`.
 */
const CONFIG_FOLDER = join(import.meta.dirname, "../../config");
export const SCHEMA_FILE = join(CONFIG_FOLDER, "entrepot.schema.json");
export const README_FILE = join(CONFIG_FOLDER, "README.md");

const BEGIN = "<!-- generated from the schema: begin -->";
const END = "<!-- generated from the schema: end -->";

/** The text of `entrepot.schema.json`. */
export function formatJsonSchema(): Promise<string> {
  const schema = {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Entrepot",
    ...publishedNode(CONFIG_SCHEMA),
  };
  return format(JSON.stringify(schema), { parser: "json" });
}

/** The text of `README.md`: what is written by hand, with its tables made anew. */
export function formatReadme(readme: string): Promise<string> {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END);
  if (begin === -1 || end < begin) throw new Error("no place for the tables");
  const text = [
    readme.slice(0, begin) + BEGIN,
    keyTable(),
    variableTable(),
    readme.slice(end),
  ].join("\n\n");
  return format(text, { parser: "markdown" });
}

/** Editors show descriptions only, so the meaning of 0 and of absence goes there; our own words go. */
function publishedNode(node: SchemaNode): Record<string, unknown> {
  const published: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(node)) {
    if (key.startsWith("x-")) continue;
    published[key] = publishedValue(key, value);
  }
  const notes = [
    node.description,
    node["x-expected"] && `Value: ${node["x-expected"]}.`,
    node["x-zero"] && `Zero or empty: ${node["x-zero"]}.`,
    node["x-absent"] && `Absent: ${node["x-absent"]}.`,
  ];
  const description = notes.filter(Boolean).join(" ");
  return description === "" ? published : { ...published, description };
}

function publishedValue(key: string, value: unknown): unknown {
  switch (key) {
    case "properties":
      return Object.fromEntries(
        Object.entries(value as Record<string, SchemaNode>).map(
          ([name, node]) => [name, publishedNode(node)],
        ),
      );
    case "items":
    case "propertyNames":
      return publishedNode(value as SchemaNode);
    case "additionalProperties":
      return value === false ? false : publishedNode(value as SchemaNode);
    default:
      return value;
  }
}

export interface DocumentedKey {
  /** As in `upstreams.<name>.freshness.rules[].match`. */
  readonly path: string;
  readonly node: SchemaNode;
  readonly isRequired: boolean;
}

/** Every key of the schema, mappings before what is in them. */
export function documentedKeys(
  node: SchemaNode = CONFIG_SCHEMA,
  path = "",
): DocumentedKey[] {
  const keys: DocumentedKey[] = [];
  const add = (name: string, child: SchemaNode): void => {
    const childPath = path === "" ? name : `${path}.${name}`;
    const isRequired = node.required?.includes(name) === true;
    keys.push({ path: childPath, node: child, isRequired });
    keys.push(...documentedKeys(child, childPath));
    const { items } = child;
    // Where a list may stand for one mapping, the mapping's own keys tell of both.
    if (items?.properties !== undefined && child.properties === undefined) {
      keys.push(...documentedKeys(items, `${childPath}[]`));
    }
  };
  for (const [name, child] of Object.entries(node.properties ?? {})) {
    add(name, child);
  }
  if (node.additionalProperties) add("<name>", node.additionalProperties);
  return keys;
}

function keyTable(): string {
  const rows = documentedKeys().map((key) => [
    code(key.path),
    key.node.description ?? "",
    (key.node["x-expected"] ?? "").replaceAll("*", "\\*"),
    examples(key.node).map(inYaml).join("<br>"),
    absence(key),
    key.node["x-zero"] ?? "",
  ]);
  return table(
    ["Key", "Meaning", "Value", "Example", "Absent", "Zero or empty"],
    rows,
  );
}

/** A default is an example too, but for mappings, whose keys have their own. */
function examples(node: SchemaNode): readonly unknown[] {
  if (node.examples !== undefined) return node.examples;
  return node.default === undefined || node.properties !== undefined
    ? []
    : [node.default];
}

function absence({ node, isRequired }: DocumentedKey): string {
  if (isRequired) return "a fault";
  if (node["x-absent"] !== undefined) return node["x-absent"];
  if (node.properties !== undefined) return "every default below";
  return node.default === undefined ? "" : inYaml(node.default);
}

/** Without quotes where YAML needs none. */
function inYaml(value: unknown): string {
  return code(
    stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trim(),
  );
}

function code(text: string): string {
  return `\`${text}\``;
}

function variableTable(): string {
  const rows = [...scalarPaths(CONFIG_SCHEMA, [])].map(([name, { path }]) => [
    code(name),
    code(path.join(".")),
  ]);
  return table(["Variable", "Key"], rows);
}

/** Cells as they are: Prettier would pad every row to the longest. */
function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  return [
    "<!-- prettier-ignore -->",
    row(head),
    row(head.map(() => "---")),
    ...rows.map(row),
  ].join("\n");
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

if (import.meta.main) {
  await writeFile(SCHEMA_FILE, await formatJsonSchema());
  const readme = await readFile(README_FILE, "utf8");
  await writeFile(README_FILE, await formatReadme(readme));
}
