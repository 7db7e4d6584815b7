import { join } from "node:path";
import { format } from "prettier";
import { stringify } from "yaml";
import { scalarPaths, scalarsOfEntry } from "../../src/config/environment.ts";
import type { SchemaNode } from "../../src/config/schema/schema-node.ts";
import { CONFIG_SCHEMA } from "../../src/config/schema/schema.ts";
import { replaceGeneratedPart } from "./reference/generated-part.ts";
import { code, markdownTable } from "./reference/markdown-table.ts";

const CONFIG_FOLDER = join(import.meta.dirname, "../../config");
export const SCHEMA_FILE = join(CONFIG_FOLDER, "entrepot.schema.json");
export const README_FILE = join(CONFIG_FOLDER, "README.md");

/** Returns the text of `entrepot.schema.json`. */
export function formatJsonSchema(
  root: SchemaNode = CONFIG_SCHEMA,
): Promise<string> {
  const schema = {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Entrepot",
    ...publishedNode(root),
  };
  return format(JSON.stringify(schema), { parser: "json" });
}

/** Returns the text of `README.md`: the parts written by hand, with the tables generated again. */
export function formatReadme(readme: string): Promise<string> {
  return replaceGeneratedPart(readme, [keyTable(), variableTable()]);
}

/**
 * Editors show descriptions only, so the meaning of zero and of absence is added to them. The `x-`
 * keywords are left out.
 */
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

/** Returns every key of the schema; a mapping precedes the keys in it. */
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
    // If a list may replace one mapping, the keys of the mapping document both.
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
  return markdownTable(
    ["Key", "Meaning", "Value", "Example", "Absent", "Zero or empty"],
    rows,
  );
}

/** A default is an example too, except for mappings, whose keys have their own examples. */
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

/** Writes a value as YAML, quoted only if YAML needs it. */
function inYaml(value: unknown): string {
  return code(
    stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trim(),
  );
}

function variableTable(): string {
  const scalars = [
    ...scalarPaths(CONFIG_SCHEMA, []),
    ...scalarsOfEntry(CONFIG_SCHEMA, "hosted", "<name>"),
  ];
  const rows = scalars.map(([name, { path }]) => [
    code(name),
    code(path.join(".")),
  ]);
  return markdownTable(["Variable", "Key"], rows);
}
