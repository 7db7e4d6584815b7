/**
 * The value of a schema's node as the file holds it, once the schema has accepted it and its
 * defaults are filled in: a key with a default is never absent.
 */
export type Written<Node> = Node extends {
  readonly enum: readonly (infer Value)[];
}
  ? Value
  : Node extends { readonly not: { readonly enum: readonly (infer Value)[] } }
    ? Exclude<WrittenAs<Node, TypeOf<Node>>, Value>
    : WrittenAs<Node, TypeOf<Node>>;

type TypeOf<Node> = Node extends { readonly type: readonly (infer Type)[] }
  ? Type
  : Node extends { readonly type: infer Type }
    ? Type
    : never;

/** One member for each type; `null` stands for a mapping without keys, which the loader puts in. */
type WrittenAs<Node, Type> = Type extends "string"
  ? string
  : Type extends "integer"
    ? number
    : Type extends "boolean"
      ? boolean
      : Type extends "array"
        ? Node extends { readonly items: infer Items }
          ? readonly Written<Items>[]
          : never
        : Type extends "object"
          ? WrittenMapping<Node>
          : never;

type WrittenMapping<Node> = Node extends { readonly properties: object }
  ? {
      readonly [
        Key in keyof Properties<Node> as IsPresent<Node, Key> extends true
          ? Key
          : never
      ]: Written<Properties<Node>[Key]>;
    } & {
      readonly [
        Key in keyof Properties<Node> as IsPresent<Node, Key> extends true
          ? never
          : Key
      ]?: Written<Properties<Node>[Key]>;
    }
  : Node extends { readonly additionalProperties: infer Additional }
    ? Readonly<Record<string, Written<Additional>>>
    : never;

/** The nodes of a mapping's keys. */
export type Properties<Node> = Node extends {
  readonly properties: infer Found;
}
  ? Found
  : never;

/** Whether a key has a default or must be written. */
export type IsPresent<
  Node,
  Key extends keyof Properties<Node>,
> = Properties<Node>[Key] extends { readonly default: unknown }
  ? true
  : Node extends { readonly required: readonly (infer Required)[] }
    ? Key extends Required
      ? true
      : false
    : false;

/**
 * The same after the schema's faults were taken out: any part may be missing, list items too, and
 * the rest is valid. One pass can then report the faults of the schema and those between keys.
 */
export type Pruned<T> = T extends readonly (infer Item)[]
  ? readonly (Pruned<Item> | undefined)[]
  : T extends object
    ? { readonly [Key in keyof T]?: Pruned<T[Key]> | undefined }
    : T;
