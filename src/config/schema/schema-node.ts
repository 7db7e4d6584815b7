import { FORMS, type FormName } from "./forms.ts";

export type SchemaType =
  "array" | "boolean" | "integer" | "null" | "object" | "string";

/**
 * A node of the configuration's schema: JSON Schema draft-07 with annotations of our own.
 * The same node validates, gives the default and is printed in the documentation.
 */
export interface SchemaNode {
  readonly type?: SchemaType | readonly SchemaType[];
  readonly description?: string;
  readonly default?: unknown;
  readonly examples?: readonly unknown[];
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly additionalProperties?: false | SchemaNode;
  readonly propertyNames?: SchemaNode;
  readonly required?: readonly string[];
  readonly items?: SchemaNode;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly uniqueItems?: boolean;
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly minLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly not?: SchemaNode;
  /** The value is a text of this form. */
  readonly "x-form"?: FormName;
  /** Bounds of a duration, both allowed themselves. */
  readonly "x-atLeast"?: string;
  readonly "x-atMost"?: string;
  /** A right value in words: the second half of a fault. */
  readonly "x-expected"?: string;
  /** What 0, `0s`, an empty list or `false` means. */
  readonly "x-zero"?: string;
  /** What holds where the key is not written and `default` does not say it. */
  readonly "x-absent"?: string;
  /** A value in this place is never shown. */
  readonly "x-secret"?: boolean;
}

/** A leaf that is a text of a form. */
export function textOf(form: FormName, node: SchemaNode): SchemaNode {
  return {
    type: "string",
    pattern: FORMS[form].pattern,
    "x-form": form,
    ...node,
  };
}

/** A leaf that is a size or a share; without a unit only 0, which YAML may read as a number. */
export function amountOf(node: SchemaNode): SchemaNode {
  return textOf("amount", {
    type: ["string", "integer"],
    minimum: 0,
    maximum: 0,
    ...node,
  });
}

export function listOf(items: SchemaNode, node: SchemaNode): SchemaNode {
  return { type: "array", items, uniqueItems: true, ...node };
}

export function mappingOf(
  properties: Readonly<Record<string, SchemaNode>>,
  node: SchemaNode,
): SchemaNode {
  return { type: "object", additionalProperties: false, properties, ...node };
}

/** Follows keys and list positions; undefined where the schema has no such place. */
export function schemaAt(
  root: SchemaNode,
  path: readonly (string | number)[],
): SchemaNode | undefined {
  let node: SchemaNode | undefined = root;
  for (const part of path) {
    if (node === undefined) return undefined;
    node = childOf(node, part);
  }
  return node;
}

function childOf(
  node: SchemaNode,
  part: string | number,
): SchemaNode | undefined {
  if (typeof part === "number") return node.items;
  if (node.properties !== undefined && Object.hasOwn(node.properties, part)) {
    return node.properties[part];
  }
  return node.additionalProperties === false
    ? undefined
    : node.additionalProperties;
}
