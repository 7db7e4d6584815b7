import { isMapping } from "./config-file.ts";
import { UPSTREAMS_VARIABLE } from "./environment.ts";
import { type ConfigFault, formatKeyPath, type KeyPath } from "./fault.ts";
import { resolvePath } from "./files/files.ts";
import { childOf, type SchemaNode } from "./schema/schema-node.ts";
import { CONFIG_SCHEMA } from "./schema/schema.ts";
import { resolveAs } from "./schema/settings.ts";
import { type LineTree, lineOf, readYaml } from "./yaml-source.ts";

/** The `upstreams` key from the environment; it replaces that of the file. */
export interface UpstreamsVariable {
  /** Undefined if it is not valid YAML. */
  readonly value: unknown;
  readonly faults: readonly ConfigFault[];
  /** @param path below `upstreams`; @returns the line, if the variable has several */
  readonly lineOf: (path: KeyPath) => number | undefined;
}

/**
 * Reads `ENTREPOT_UPSTREAMS`, YAML or JSON, so that a container needs no file. Its relative paths are
 * resolved against the current folder.
 *
 * @returns undefined if it is absent or empty
 */
export async function readUpstreamsVariable({
  env,
  cwd,
  home,
}: {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
}): Promise<UpstreamsVariable | undefined> {
  const text = env[UPSTREAMS_VARIABLE];
  if (!text) return undefined;
  const { value, lines, faults } = await readYaml(text);
  const hasLines = text.trim().includes("\n");
  const located = faults.map((fault): ConfigFault => ({
    ...fault,
    file: UPSTREAMS_VARIABLE,
    line: hasLines ? fault.line : undefined,
    path: formatKeyPath(["upstreams", ...fault.path]),
  }));
  return {
    value:
      faults.length > 0
        ? undefined
        : withAbsolutePaths(
            value ?? null,
            CONFIG_SCHEMA.properties.upstreams,
            (path) => resolvePath(path, cwd, home),
          ),
    faults: located,
    lineOf: (path) => lineInside(hasLines, lines, path),
  };
}

function lineInside(
  hasLines: boolean,
  lines: LineTree,
  path: KeyPath,
): number | undefined {
  return hasLines ? lineOf(lines, path) : undefined;
}

/** Makes every path absolute, by the schema; what the schema does not know stays as it is. */
function withAbsolutePaths(
  value: unknown,
  node: SchemaNode | undefined,
  resolve: (path: string) => string,
): unknown {
  if (Array.isArray(value)) {
    return value.map((item) => withAbsolutePaths(item, node?.items, resolve));
  }
  if (isMapping(value)) {
    // Without a prototype, as the file's: a key named __proto__ is a key like any other.
    const made = Object.create(null) as Record<string, unknown>;
    for (const [key, child] of Object.entries(value)) {
      const childNode = node === undefined ? node : childOf(node, key);
      made[key] = withAbsolutePaths(child, childNode, resolve);
    }
    return made;
  }
  const kind = node?.["x-path"];
  return typeof value === "string" && value !== "" && kind !== undefined
    ? resolveAs(kind, value, resolve)
    : value;
}
