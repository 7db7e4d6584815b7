import { FORMS, type FormName } from "./forms.ts";

export type SchemaType =
  "array" | "boolean" | "integer" | "null" | "object" | "string";

/**
 * A node of the configuration's schema: JSON Schema draft-07 with annotations of our own. The same
 * node validates, gives the default, is printed in the documentation, and says how the value gets
 * from the file into the configuration (`settings.ts`) and back (`describe.ts`).
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
  /** The name in the configuration, if it is not the key with the suffix of its form. */
  readonly "x-field"?: string;
  /**
   * The value is a path, relative to the folder of the file that holds it. `file or -` leaves `-`
   * as it is; `program` is a path only if it has a slash.
   */
  readonly "x-path"?: "file" | "file or -" | "program";
  /** Bounds of a duration or of a size, both allowed themselves. */
  readonly "x-atLeast"?: string;
  readonly "x-atMost"?: string;
  /** Describes a valid value: the second half of a fault. */
  readonly "x-expected"?: string;
  /** Says what 0, `0s`, an empty list or `false` means. */
  readonly "x-zero"?: string;
  /** Says what applies if the key is absent and `default` does not say it. */
  readonly "x-absent"?: string;
  /** The value is never printed. */
  readonly "x-secret"?: boolean;
}

/** A node whose own keywords replace those of its kind. */
export type Extended<Kind, Node> = Omit<Kind, keyof Node> & Node;

function extend<Kind extends SchemaNode, Node extends SchemaNode>(
  kind: Kind,
  node: Node,
): Extended<Kind, Node> {
  return { ...kind, ...node };
}

/** Makes a leaf that is a text of a form. */
export function textOf<
  const Form extends FormName,
  const Node extends SchemaNode,
>(form: Form, node: Node) {
  return extend(
    {
      type: "string",
      pattern: FORMS[form].pattern,
      "x-form": form,
    } as const,
    node,
  );
}

/** Makes a leaf that is the path of a file; an empty text counts as absent. */
export function fileOf<const Node extends SchemaNode>(node: Node) {
  return extend(
    {
      type: "string",
      "x-expected": "the path of a file",
      "x-zero": "an empty text counts as absent",
      "x-path": "file",
    } as const,
    node,
  );
}

/** Makes a leaf that is a size or a share; without a unit only 0, which YAML may read as a number. */
export function amountOf<const Node extends SchemaNode>(node: Node) {
  return textOf(
    "amount",
    extend(
      { type: ["string", "integer"], minimum: 0, maximum: 0 } as const,
      node,
    ),
  );
}

export const ANY_DURATION = "a duration such as 30s, 10m, 24h, 90d or forever";

/** Makes a leaf that is a duration. */
export function durationOf<const Node extends SchemaNode>(
  value: string,
  node: Node,
) {
  return textOf(
    "duration",
    extend({ default: value, "x-expected": ANY_DURATION } as const, node),
  );
}

/** Makes a leaf that is a wait on the network: never 0, never without an end. */
export function timeoutOf<const Node extends SchemaNode>(
  value: string,
  atMost: string,
  node: Node,
) {
  return durationOf(
    value,
    extend(
      {
        "x-atLeast": "1ms",
        "x-atMost": atMost,
        "x-expected": `a duration above 0s and at most ${atMost}, such as ${value}`,
      },
      node,
    ),
  );
}

export function listOf<
  const Items extends SchemaNode,
  const Node extends SchemaNode,
>(items: Items, node: Node) {
  return extend({ type: "array", items, uniqueItems: true } as const, node);
}

export function mappingOf<
  const Properties extends Readonly<Record<string, SchemaNode>>,
  const Node extends SchemaNode,
>(properties: Properties, node: Node) {
  return extend(
    { type: "object", additionalProperties: false, properties } as const,
    node,
  );
}

/** Follows keys and list positions; undefined if the schema has no such place. */
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

/** Returns the node of a key or of a list item; undefined if the schema has none. */
export function childOf(
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
