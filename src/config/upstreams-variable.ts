import { isMapping } from "./config-file.ts";
import { UPSTREAMS_VARIABLE } from "./environment.ts";
import { type ConfigFault, formatKeyPath, type KeyPath } from "./fault.ts";
import { resolvePath } from "./files/files.ts";
import { type LineTree, lineOf, readYaml } from "./yaml-source.ts";

/** The `upstreams` key, as an environment variable gives it; it takes the place of the file's. */
export interface UpstreamsVariable {
  /** Undefined if it could not be read. */
  readonly value: unknown;
  readonly faults: readonly ConfigFault[];
  /** @param path below `upstreams`; @returns the line, if the variable has several */
  readonly lineOf: (path: KeyPath) => number | undefined;
}

/**
 * Reads `ENTREPOT_UPSTREAMS`, YAML or JSON, so that a container needs no file. Relative paths in it
 * begin in the current folder.
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
  const located = faults.map(({ line, path, seen, expected }): ConfigFault => ({
    file: UPSTREAMS_VARIABLE,
    line: hasLines ? line : undefined,
    path: formatKeyPath(["upstreams", ...path]),
    seen,
    expected,
  }));
  return {
    value:
      faults.length > 0
        ? undefined
        : withAbsolutePaths(value ?? null, (path) =>
            resolvePath(path, cwd, home),
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

/** Every key that ends in `File` names one; a helper does if it has a slash, as in a shell. */
function withAbsolutePaths(
  value: unknown,
  resolve: (path: string) => string,
): unknown {
  if (Array.isArray(value)) {
    return value.map((item) => withAbsolutePaths(item, resolve));
  }
  if (!isMapping(value)) return value;
  // Without a prototype, as the file's: a key named __proto__ is a key like any other.
  const made = Object.create(null) as Record<string, unknown>;
  for (const [key, child] of Object.entries(value)) {
    const isPath =
      typeof child === "string" &&
      child !== "" &&
      (key.endsWith("File") || (key === "helper" && /[/~]/.test(child)));
    made[key] = isPath ? resolve(child) : withAbsolutePaths(child, resolve);
  }
  return made;
}
