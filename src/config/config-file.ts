import { dirname } from "node:path";
import { CONFIG_FILE_VARIABLE } from "./environment.ts";
import { type ConfigFault, formatKeyPath } from "./fault.ts";
import { type FileText, readTextFile, resolvePath } from "./files/files.ts";
import { type LineTree, readYaml, type YamlFault } from "./yaml-source.ts";

/** Read if neither `--config` nor `$ENTREPOT_CONFIG` names a file; may be missing. */
const SYSTEM_CONFIG_FILE = "/etc/entrepot/entrepot.yaml";
const MAX_CONFIG_FILE_BYTES = 1_048_576;

export interface ConfigFileOptions {
  /** From `--config`; takes precedence over `$ENTREPOT_CONFIG`. */
  readonly configFile?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Absolute; the base of relative paths in arguments, environment and defaults. */
  readonly cwd: string;
  /** Replaces `~/`. */
  readonly home: string;
  /** In place of {@link SYSTEM_CONFIG_FILE}. */
  readonly systemConfigFile?: string;
}

/** The configuration file after reading; the value is empty if the file is missing or faulty. */
export interface ConfigFile {
  /** As it was named. */
  readonly name: string | undefined;
  readonly path: string | undefined;
  /** The base of its relative paths. */
  readonly folder: string;
  readonly value: Record<string, unknown>;
  readonly lines: LineTree | undefined;
  readonly read: FileText | undefined;
  readonly faults: readonly ConfigFault[];
}

export async function readConfigFile(
  options: ConfigFileOptions,
): Promise<ConfigFile> {
  const named =
    options.configFile ?? (options.env[CONFIG_FILE_VARIABLE] || undefined);
  const name = named ?? options.systemConfigFile ?? SYSTEM_CONFIG_FILE;
  const path = resolvePath(name, options.cwd, options.home);
  const folder = dirname(path);
  const none = { value: {}, lines: undefined, read: undefined };
  const read = await readTextFile(path, MAX_CONFIG_FILE_BYTES);
  if (!read.isRead && read.isMissing && named === undefined) {
    return { ...none, name: undefined, path: undefined, folder, faults: [] };
  }
  const place = { name, path, folder };
  if (!read.isRead) {
    const fault = {
      seen: read.seen,
      expected: "a YAML file no larger than 1 MiB",
    };
    return {
      ...none,
      ...place,
      faults: [{ file: name, line: undefined, path: "", ...fault }],
    };
  }
  const { value, lines, faults } = await readYaml(read.text);
  const locate = (fault: YamlFault): ConfigFault => ({
    ...fault,
    file: name,
    path: formatKeyPath(fault.path),
  });
  if (faults.length > 0) {
    return { ...none, ...place, faults: faults.map(locate) };
  }
  if (value !== undefined && !isMapping(value)) {
    const fault = {
      path: [],
      seen: "a list or a text",
      expected: "a mapping of keys",
    };
    return {
      ...none,
      ...place,
      faults: [locate({ ...fault, line: lines.line })],
    };
  }
  return { ...place, value: value ?? {}, lines, read, faults: [] };
}

export function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
