import type { KeyPath } from "./fault.ts";
import type { FormName } from "./schema/forms.ts";
import { childOf, type SchemaNode } from "./schema/schema-node.ts";

/** A size, a share or a duration as the operator wrote it: `1536MiB` and `60s` keep their units. */
export interface WrittenQuantity {
  readonly path: KeyPath;
  readonly text: string | number;
}

const QUANTITIES: ReadonlySet<FormName | undefined> = new Set<
  FormName | undefined
>([
  "amount",
  "dailyShare",
  "duration",
  "durationOrOff",
  "quota",
  "rate",
  "size",
]);

/** Returns the quantities of a document that the schema has accepted, defaults included. */
export function findQuantities(
  value: unknown,
  node: SchemaNode,
  path: KeyPath = [],
): WrittenQuantity[] {
  if (typeof value === "string" || typeof value === "number") {
    return QUANTITIES.has(node["x-form"]) ? [{ path, text: value }] : [];
  }
  if (Array.isArray(value)) {
    const items = node.items ?? {};
    return value.flatMap((item: unknown, index) =>
      findQuantities(item, items, [...path, index]),
    );
  }
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) =>
    findQuantities(child, childOf(node, key) ?? {}, [...path, key]),
  );
}

/** Replaces the value at the path of each quantity, if the tree has one there. */
export function restoreQuantities(
  tree: Record<string, unknown>,
  quantities: readonly WrittenQuantity[],
): void {
  for (const { path, text } of quantities) {
    let parent: unknown = tree;
    for (const part of path.slice(0, -1)) {
      parent =
        typeof parent === "object" && parent !== null
          ? Reflect.get(parent, part)
          : undefined;
    }
    const last = path.at(-1);
    if (
      last !== undefined &&
      typeof parent === "object" &&
      parent !== null &&
      Object.hasOwn(parent, last)
    ) {
      Reflect.set(parent, last, text);
    }
  }
}
