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
  /** Replaces `~/`; the user's home folder if absent. */
  readonly home?: string;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Print JSON instead of YAML. */
  readonly json?: boolean | undefined;
  /** Print only the keys that differ from the defaults. */
  readonly changed?: boolean | undefined;
}

/**
 * Prints the effective configuration on stdout, with secrets hidden and with sizes and durations as
 * the operator wrote them; or each fault as a line on stderr. Prints warnings on stderr in both cases.
 *
 * @returns the exit code: 0, or 2 if there are faults
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
