import { Ajv, type ErrorObject } from "ajv";
import type { ConfigDocument, Pruned } from "./document.ts";
import {
  type Flaw,
  formatKind,
  formatSeen,
  type KeyPath,
  type PlacedFault,
} from "./fault.ts";
import { FORMS, type FormName } from "./schema/forms.ts";
import { chooseNearestKey } from "./nearest-key.ts";
import { schemaAt, type SchemaNode } from "./schema/schema-node.ts";
import { CONFIG_SCHEMA } from "./schema/schema.ts";
import { parseDuration, parseSize } from "./schema/units.ts";

export type ValidatedDocument =
  | { readonly isWhole: true; readonly document: ConfigDocument }
  | {
      readonly isWhole: false;
      readonly faults: readonly PlacedFault[];
      /** Without its invalid parts. */
      readonly document: Pruned<ConfigDocument>;
    };

/**
 * Validates a document against the schema and fills in its defaults.
 *
 * @param document values of the file and the environment; it is changed
 */
export function validateDocument(
  document: Record<string, unknown>,
  schema: SchemaNode = CONFIG_SCHEMA,
): ValidatedDocument {
  const validate = createValidator(schema);
  if (validate(document)) {
    return { isWhole: true, document: document as unknown as ConfigDocument };
  }
  const faults = new Map<string, PlacedFault>();
  for (const error of validate.errors ?? []) {
    const fault = describeError(error, document, schema);
    const place = JSON.stringify(fault?.path);
    if (fault !== undefined && !faults.has(place)) faults.set(place, fault);
  }
  for (const fault of faults.values()) prune(document, fault.path);
  return {
    isWhole: false,
    faults: [...faults.values()],
    document,
  };
}

/** Compiles at each use: starts and reloads are rare, and a compiled schema stays in memory. */
function createValidator(schema: SchemaNode) {
  const ajv = new Ajv({
    allErrors: true,
    verbose: true,
    useDefaults: true,
    strict: true,
    allowUnionTypes: true,
    messages: false,
    logger: false,
    // A test validates the schema against the meta-schema; at run time that would only cost memory.
    meta: false,
    validateSchema: false,
  });
  ajv.addVocabulary([
    "x-expected",
    "x-zero",
    "x-absent",
    "x-secret",
    "x-field",
    "x-path",
  ]);
  ajv.addKeyword({
    keyword: "x-form",
    type: "string",
    schemaType: "string",
    errors: false,
    validate: (form: FormName, text: string) =>
      FORMS[form].findFlaw(text) === undefined,
  });
  ajv.addKeyword({
    keyword: "x-atLeast",
    type: "string",
    schemaType: "string",
    errors: false,
    validate: (bound: string, text: string) =>
      quantityOf(text) >= quantityOf(bound),
  });
  ajv.addKeyword({
    keyword: "x-atMost",
    type: "string",
    schemaType: "string",
    errors: false,
    validate: (bound: string, text: string) =>
      quantityOf(text) <= quantityOf(bound),
  });
  return ajv.compile(schema);
}

/** Returns NaN, which no bound accepts, for any other text; `x-form` reports that already. */
function quantityOf(text: string): number {
  return parseDuration(text) ?? parseSize(text) ?? Number.NaN;
}

function describeError(
  error: ErrorObject,
  document: unknown,
  schema: SchemaNode,
): PlacedFault | undefined {
  const path = parsePointer(error.instancePath, document);
  const node = (error.parentSchema ?? {}) as SchemaNode;
  switch (error.keyword) {
    case "additionalProperties": {
      const key = String(error.params["additionalProperty"]);
      return describeUnknownKey(path, key, schema);
    }
    case "propertyNames": {
      const key = String(error.params["propertyName"]);
      const names = node.propertyNames ?? {};
      const { expected = expectedOf(names), fix } = findFlaw(names, key);
      return { path: [...path, key], seen: "an invalid name", expected, fix };
    }
    case "required": {
      const key = String(error.params["missingProperty"]);
      return {
        path: [...path, key],
        seen: "no value",
        expected: expectedOf(node.properties?.[key] ?? {}),
      };
    }
    case "uniqueItems": {
      const { i, j } = error.params as { readonly i: number; j: number };
      const items = Array.isArray(error.data) ? error.data : [];
      const format =
        node.items?.["x-secret"] === true ? formatKind : formatSeen;
      return {
        path: [...path, Math.max(i, j)],
        seen: `${format(items[i])} twice`,
        expected: "each item once",
      };
    }
    default:
      // The keyword propertyNames itself reports what fails within it.
      return error.propertyName === undefined
        ? describeValue(path, node, error)
        : undefined;
  }
}

function describeUnknownKey(
  parent: KeyPath,
  key: string,
  schema: SchemaNode,
): PlacedFault {
  const siblings = Object.keys(schemaAt(schema, parent)?.properties ?? {});
  const nearest = chooseNearestKey(key, siblings);
  return {
    path: [...parent, key],
    seen: "an unknown key",
    expected:
      nearest === undefined ? `one of ${siblings.join(", ")}` : "a known key",
    fix: nearest === undefined ? undefined : `did you mean ${nearest}?`,
  };
}

function describeValue(
  path: KeyPath,
  node: SchemaNode,
  error: ErrorObject,
): PlacedFault {
  const isSecret = node["x-secret"] === true;
  const flaw = findFlaw(node, error.data);
  const seen = isSecret ? formatKind(error.data) : formatSeen(error.data);
  const mayNeedQuotes =
    error.keyword === "type" &&
    node.type === "string" &&
    node["x-form"] === undefined &&
    node.enum === undefined &&
    (typeof error.data === "number" || typeof error.data === "boolean");
  return {
    path,
    seen: isSecret && error.data === "" ? "an empty text" : (flaw.seen ?? seen),
    expected: `${flaw.expected ?? expectedOf(node)}${mayNeedQuotes ? ", in quotes" : ""}`,
    fix: flaw.fix,
  };
}

function findFlaw(node: SchemaNode, value: unknown): Partial<Flaw> {
  const form = node["x-form"];
  if (form === undefined || typeof value !== "string") return {};
  return FORMS[form].findFlaw(value) ?? {};
}

function expectedOf(node: SchemaNode): string {
  return node["x-expected"] ?? "a value that the schema allows";
}

/** Parses a pointer (RFC 6901). A part is a position if its parent is a list; otherwise a key, even one of digits. */
function parsePointer(pointer: string, root: unknown): (string | number)[] {
  const path: (string | number)[] = [];
  let value = root;
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    path.push(Array.isArray(value) ? Number(key) : key);
    value =
      typeof value === "object" && value !== null
        ? Reflect.get(value, key)
        : undefined;
  }
  return path;
}

/** Removes a value. A list keeps its length, so that later positions stay valid. */
function prune(document: Record<string, unknown>, path: KeyPath): void {
  let parent: unknown = document;
  for (const part of path.slice(0, -1)) {
    if (typeof parent !== "object" || parent === null) return;
    parent = Reflect.get(parent, part);
  }
  const last = path.at(-1);
  if (last === undefined || typeof parent !== "object" || parent === null) {
    return;
  }
  if (Array.isArray(parent)) parent[Number(last)] = undefined;
  else Reflect.deleteProperty(parent, last);
}
