import {
  type AmountConfig,
  formatAmount,
  formatDailyShare,
  formatDuration,
  formatDurationOrOff,
  formatRate,
  formatSize,
  parseAmount,
  parseDailyShare,
  parseDuration,
  parseDurationOrOff,
  parseRate,
  parseSize,
} from "./units.ts";
import {
  formatListenAddress,
  type ListenAddress,
  parseEndpoint,
  parseListenAddress,
} from "./forms.ts";
import type { SchemaNode } from "./schema-node.ts";
import type { IsPresent, Properties, Pruned, Written } from "./written.ts";

/** The values that texts of some forms have in the configuration; other values are unchanged. */
interface FormValues {
  readonly amount: AmountConfig;
  /** Between 0 and 1; 0 for `off`. */
  readonly dailyShare: number;
  /** Infinity for `forever`. */
  readonly duration: number;
  /** Infinity for `off`. */
  readonly durationOrOff: number;
  readonly endpoint: string;
  readonly listen: ListenAddress;
  /** Infinity for 0, which means unlimited. */
  readonly quota: number;
  /** Infinity for 0, which means unlimited. */
  readonly rate: number;
  readonly size: number;
}

interface Conversion<Value> {
  /** Follows the key in the name of the field. */
  readonly suffix: string;
  readonly parse: (text: string) => Value | undefined;
  readonly format: (value: Value) => string | number;
}

const CONVERSIONS = {
  amount: { suffix: "", parse: parseAmount, format: formatAmount },
  dailyShare: {
    suffix: "Share",
    parse: parseDailyShare,
    format: formatDailyShare,
  },
  duration: { suffix: "Ms", parse: parseDuration, format: formatDuration },
  durationOrOff: {
    suffix: "Ms",
    parse: parseDurationOrOff,
    format: formatDurationOrOff,
  },
  endpoint: { suffix: "", parse: parseEndpoint, format: String },
  listen: {
    suffix: "",
    parse: parseListenAddress,
    format: formatListenAddress,
  },
  quota: { suffix: "Bytes", parse: parseRate, format: formatRate },
  rate: { suffix: "BytesPerSecond", parse: parseRate, format: formatRate },
  size: { suffix: "Bytes", parse: parseSize, format: formatSize },
} as const satisfies {
  readonly [Form in keyof FormValues]: Conversion<FormValues[Form]>;
};

/** The name of a key's value in the configuration: `tagTtl` is `tagTtlMs`. */
type FieldOf<Key extends string, Node> = Node extends {
  readonly "x-field": infer Field extends string;
}
  ? Field
  : Node extends { readonly "x-form": infer Form extends keyof FormValues }
    ? `${Key}${(typeof CONVERSIONS)[Form]["suffix"]}`
    : Key;

type Setting<Node> = Node extends {
  readonly "x-form": infer Form extends keyof FormValues;
}
  ? | FormValues[Form]
    | Extract<Written<Node>, boolean>
    | (Node extends { readonly items: infer Items }
        ? readonly Setting<Items>[]
        : never)
  : Node extends { readonly items: infer Items; readonly type: "array" }
    ? readonly Setting<Items>[]
    : Node extends { readonly properties: object }
      ? Settings<Node>
      : Written<Node>;

/**
 * A mapping of the schema as the program uses it: units in milliseconds and bytes, absolute paths.
 * A key without a default is optional.
 */
export type Settings<Node> = {
  readonly [
    Key in keyof Properties<Node> & string as IsPresent<Node, Key> extends true
      ? FieldOf<Key, Properties<Node>[Key]>
      : never
  ]: Setting<Properties<Node>[Key]>;
} & {
  readonly [
    Key in keyof Properties<Node> & string as IsPresent<Node, Key> extends true
      ? never
      : FieldOf<Key, Properties<Node>[Key]>
  ]?: Setting<Properties<Node>[Key]> | undefined;
};

/**
 * Turns a mapping into settings, key by key as the schema says. An empty path counts as absent, and
 * what is absent is left out.
 *
 * @param written valid; parts that were removed as faulty are missing in the settings too
 * @param resolve makes a path of the configuration absolute
 */
export function readSettings<Node extends SchemaNode>(
  node: Node,
  written: Pruned<Written<Node>>,
  resolve: (path: string) => string,
): Settings<Node> {
  const settings: Record<string, unknown> = {};
  for (const [key, child] of Object.entries(node.properties ?? {})) {
    const setting = readSetting(
      child,
      Reflect.get(Object(written), key),
      resolve,
    );
    if (setting !== undefined) settings[fieldOf(key, child)] = setting;
  }
  return settings as Settings<Node>;
}

function readSetting(
  node: SchemaNode,
  value: unknown,
  resolve: (path: string) => string,
): unknown {
  if (Array.isArray(value)) {
    return value
      .map((item: unknown) => readSetting(node.items ?? {}, item, resolve))
      .filter((item) => item !== undefined);
  }
  if (typeof value === "object" && value !== null) {
    return node.properties === undefined
      ? value
      : readSettings(node, value as never, resolve);
  }
  if (node["x-path"] !== undefined && typeof value === "string") {
    return value === "" ? undefined : resolveAs(node["x-path"], value, resolve);
  }
  const conversion = conversionOf(node);
  if (
    conversion === undefined ||
    (typeof value !== "string" && typeof value !== "number")
  ) {
    return value;
  }
  const setting = conversion.parse(String(value));
  if (setting === undefined) throw new Error(`not validated: ${value}`);
  return setting;
}

/** Makes a path absolute, by the kind that the schema says it is. */
export function resolveAs(
  kind: NonNullable<SchemaNode["x-path"]>,
  path: string,
  resolve: (path: string) => string,
): string {
  if (kind === "file or -" && path === "-") return path;
  // As in a shell: the name of a program is a path only if it has a slash.
  if (kind === "program" && !/[/~]/.test(path)) return path;
  return resolve(path);
}

/** Returns what {@link readSettings} reads back: every key with a value, in the schema's order. */
export function describeSettings(
  node: SchemaNode,
  settings: object,
): Record<string, unknown> {
  const described: Record<string, unknown> = {};
  for (const [key, child] of Object.entries(node.properties ?? {})) {
    const value: unknown = Reflect.get(settings, fieldOf(key, child));
    if (value === undefined) continue;
    const shown = describeSetting(child, value);
    if (!isEmptyDefault(child, shown)) described[key] = shown;
  }
  return described;
}

/** Whether the value is a mapping without keys that means the same as its absence. */
function isEmptyDefault(node: SchemaNode, shown: unknown): boolean {
  return (
    node.properties !== undefined &&
    node.default !== undefined &&
    typeof shown === "object" &&
    shown !== null &&
    Object.keys(shown).length === 0
  );
}

function describeSetting(node: SchemaNode, value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map((item: unknown) =>
      describeSetting(node.items ?? {}, item),
    );
  }
  const conversion = conversionOf(node);
  if (conversion !== undefined && typeof value !== "boolean") {
    return conversion.format(value);
  }
  return node.properties !== undefined &&
    typeof value === "object" &&
    value !== null
    ? describeSettings(node, value)
    : value;
}

function fieldOf(key: string, node: SchemaNode): string {
  return node["x-field"] ?? key + (conversionOf(node)?.suffix ?? "");
}

function conversionOf(node: SchemaNode): Conversion<unknown> | undefined {
  const form = node["x-form"];
  return form !== undefined && Object.hasOwn(CONVERSIONS, form)
    ? (CONVERSIONS as Readonly<Partial<Record<string, Conversion<unknown>>>>)[
        form
      ]
    : undefined;
}
