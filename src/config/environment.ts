import type { ConfigFault, KeyPath } from "./fault.ts";
import { chooseNearestKey } from "./nearest-key.ts";
import type { SchemaNode, SchemaType } from "./schema/schema-node.ts";
import { CONFIG_SCHEMA } from "./schema/schema.ts";

/** Names the file itself; not a key. */
export const CONFIG_FILE_VARIABLE = "ENTREPOT_CONFIG";

/** The whole `upstreams` mapping, as YAML or JSON. */
export const UPSTREAMS_VARIABLE = "ENTREPOT_UPSTREAMS";

const PREFIX = "ENTREPOT_";

/** Variables that other code reads. */
const OTHERS: ReadonlySet<string> = new Set([
  CONFIG_FILE_VARIABLE,
  UPSTREAMS_VARIABLE,
]);

export interface EnvironmentValue {
  readonly name: string;
  readonly path: KeyPath;
  readonly value: string | number | boolean;
}

export interface EnvironmentValues {
  readonly values: readonly EnvironmentValue[];
  readonly warnings: readonly ConfigFault[];
}

/** Returns the variable of a key: `log.level` is `ENTREPOT_LOG__LEVEL`, `eviction.maxSize` is `ENTREPOT_EVICTION__MAX_SIZE`. */
export function environmentName(path: KeyPath): string {
  return (
    PREFIX +
    path
      .map((key) => String(key).replace(/[A-Z]/g, "_$&").toUpperCase())
      .join("__")
  );
}

/**
 * Reads the keys that the environment sets. An empty variable counts as absent (`${VAR:-}` of
 * compose files). A warning about an unknown variable holds only its name: its value may be a secret.
 */
export function readEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  schema: SchemaNode = CONFIG_SCHEMA,
): EnvironmentValues {
  const scalars = scalarPaths(schema, []);
  const values: EnvironmentValue[] = [];
  const warnings: ConfigFault[] = [];
  for (const name of Object.keys(env).sort()) {
    const text = env[name];
    if (!name.startsWith(PREFIX) || OTHERS.has(name) || !text) {
      continue;
    }
    const scalar = scalars.get(name) ?? namedScalar(name, schema);
    if (scalar === undefined) {
      const known = [...knownScalars(schema).keys(), UPSTREAMS_VARIABLE];
      warnings.push(describeUnknown(name, known));
      continue;
    }
    const { path, node } = scalar;
    values.push({ name, path, value: readScalar(text, node) });
  }
  return { values, warnings };
}

const SCALAR_TYPES: ReadonlySet<SchemaType | undefined> = new Set<
  SchemaType | undefined
>(["boolean", "integer", "string"]);

export interface Scalar {
  readonly path: KeyPath;
  readonly node: SchemaNode;
}

/** The key whose scalars have no variables: `ENTREPOT_UPSTREAMS` takes the whole mapping. */
const UPSTREAMS_KEY = "upstreams";

/** Names of registries that a variable can contain: it has no dots, and its letters have no case. */
const NAME_IN_VARIABLE = /^[A-Z0-9]+$/;

/**
 * Finds the scalar of a mapping whose keys are the operator's: `ENTREPOT_HOSTED__LOCAL__QUOTA` is
 * `hosted.local.quota`.
 */
function namedScalar(name: string, schema: SchemaNode): Scalar | undefined {
  const [key = "", entry = ""] = name.slice(PREFIX.length).split("__");
  if (!NAME_IN_VARIABLE.test(entry)) return undefined;
  return scalarsOfEntry(schema, key.toLowerCase(), entry.toLowerCase()).get(
    name,
  );
}

/** Returns the variables of an entry of a mapping such as `hosted`. */
export function scalarsOfEntry(
  schema: SchemaNode,
  key: string,
  entry: string,
): Map<string, Scalar> {
  const entries = schema.properties?.[key]?.additionalProperties;
  return entries && key !== UPSTREAMS_KEY
    ? scalarPaths(entries, [key, entry])
    : new Map();
}

/** Returns the variables that a warning about an unknown one suggests. */
function knownScalars(schema: SchemaNode): Map<string, Scalar> {
  return new Map([
    ...scalarPaths(schema, []),
    ...scalarsOfEntry(schema, "hosted", "local"),
  ]);
}

/** Finds every scalar key, except those of mappings whose keys are the operator's. */
export function scalarPaths(
  node: SchemaNode,
  path: KeyPath,
): Map<string, Scalar> {
  const scalars = new Map<string, Scalar>();
  for (const [key, child] of Object.entries(node.properties ?? {})) {
    const childPath = [...path, key];
    if (child.properties !== undefined) {
      for (const entry of scalarPaths(child, childPath)) scalars.set(...entry);
    } else if (typesOf(child).some((type) => SCALAR_TYPES.has(type))) {
      scalars.set(environmentName(childPath), { path: childPath, node: child });
    }
  }
  return scalars;
}

function typesOf(node: SchemaNode): readonly (SchemaType | undefined)[] {
  return [node.type].flat();
}

/** Leaves any other text as it is, for the schema to reject. */
function readScalar(text: string, node: SchemaNode): string | number | boolean {
  const types = typesOf(node);
  if (types.includes("boolean") && /^(?:true|false)$/.test(text)) {
    return text === "true";
  }
  if (types.includes("integer") && /^\d{1,15}$/.test(text)) return Number(text);
  return text;
}

function describeUnknown(
  name: string,
  knownNames: readonly string[],
): ConfigFault {
  const nearest = chooseNearestKey(
    name.slice(PREFIX.length),
    knownNames.map((known) => known.slice(PREFIX.length)),
  );
  return {
    file: name,
    line: undefined,
    path: "",
    seen: "an environment variable that matches no key and is ignored",
    expected: `${PREFIX} and the path of a key, such as ENTREPOT_LOG__LEVEL`,
    fix:
      nearest === undefined ? undefined : `did you mean ${PREFIX}${nearest}?`,
  };
}
