import { chmod, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  loadConfig,
  type LoadOptions,
  type LoadResult,
} from "../../src/config/load.ts";
import { formatFault } from "../../src/config/fault.ts";
import { type AfterTest, tempDir } from "./temp-dir.ts";

/** A temporary folder that is both current folder and home. */
export interface ConfigFolder {
  readonly path: string;
  write(name: string, text: string | Buffer, mode?: number): Promise<string>;
  /** Loads with nothing of the real machine: no system file, no environment. */
  load(options?: Partial<LoadOptions>): Promise<LoadResult>;
  /** Writes the text as `c.yaml` and loads it by that relative name. */
  loadText(text: string, options?: Partial<LoadOptions>): Promise<LoadResult>;
}

export async function makeConfigFolder(test: AfterTest): Promise<ConfigFolder> {
  const path = await tempDir(test, "entrepot-config-");
  const load = (options: Partial<LoadOptions> = {}): Promise<LoadResult> =>
    loadConfig({
      env: {},
      cwd: path,
      home: path,
      systemConfigFile: join(path, "system.yaml"),
      ...options,
    });
  const write = async (
    name: string,
    text: string | Buffer,
    mode = 0o600,
  ): Promise<string> => {
    const file = join(path, name);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
    // Not by writeFile's own mode, from which the umask takes bits away.
    await chmod(file, mode);
    return file;
  };
  return {
    path,
    write,
    load,
    async loadText(text, options = {}) {
      await write("c.yaml", text);
      return load({ configFile: "c.yaml", ...options });
    },
  };
}

/** Every fault as it is printed; empty where the configuration was accepted. */
export function printedFaults(result: LoadResult): string[] {
  return result.ok ? [] : result.faults.map(formatFault);
}

export function printedWarnings(result: LoadResult): string[] {
  return result.warnings.map(formatFault);
}
