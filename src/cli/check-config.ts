import { homedir } from "node:os";
import type { Writable } from "node:stream";
import { describeChanges } from "../config/changes.ts";
import { describeConfig, formatConfig } from "../config/describe.ts";
import { formatFault } from "../config/fault.ts";
import { loadConfig } from "../config/load.ts";
import { restoreQuantities } from "../config/quantities.ts";
import { writeOut } from "./write-out.ts";

export interface CheckConfigOptions {
  /** From `--config`. */
  readonly configFile?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Absolute. */
  readonly cwd: string;
  /** What `~/` stands for; the user's home folder where absent. */
  readonly home?: string;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** JSON in place of YAML. */
  readonly json?: boolean | undefined;
  /** Only the keys that differ from the defaults. */
  readonly changed?: boolean | undefined;
}

/**
 * Prints the configuration in force on stdout, secrets hidden, sizes and durations as they were
 * written, or each fault as a line on stderr;
 * warnings on stderr either way.
 *
 * @returns the exit code: 0, or 2 where there are faults
 */
export async function runCheckConfig(
  options: CheckConfigOptions,
): Promise<number> {
  const { configFile, env, cwd, stdout, stderr, json, changed } = options;
  const home = options.home ?? homedir();
  const result = await loadConfig({ configFile, env, cwd, home });
  for (const warning of result.warnings) {
    await writeOut(stderr, `warning: ${formatFault(warning)}\n`);
  }
  if (!result.ok) {
    for (const fault of result.faults) {
      await writeOut(stderr, `${formatFault(fault)}\n`);
    }
    return 2;
  }
  const described =
    changed === true
      ? describeChanges(result.config, { cwd, home })
      : describeConfig(result.config);
  restoreQuantities(described, result.quantities);
  const text =
    json === true
      ? `${JSON.stringify(described, undefined, 2)}\n`
      : await formatConfig(described);
  await writeOut(stdout, text);
  return 0;
}
