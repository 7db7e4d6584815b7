import { homedir } from "node:os";
import type { Writable } from "node:stream";
import { describeConfig, formatConfig } from "../config/describe.ts";
import { formatFault } from "../config/fault.ts";
import { loadConfig } from "../config/load.ts";
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
}

/**
 * Prints the configuration in force on stdout, secrets hidden, or each fault as a line on stderr;
 * warnings on stderr either way.
 *
 * @returns the exit code: 0, or 2 where there are faults
 */
export async function runCheckConfig(
  options: CheckConfigOptions,
): Promise<number> {
  const { configFile, env, cwd, stdout, stderr, json } = options;
  const result = await loadConfig({
    configFile,
    env,
    cwd,
    home: options.home ?? homedir(),
  });
  for (const warning of result.warnings) {
    await writeOut(stderr, `warning: ${formatFault(warning)}\n`);
  }
  if (!result.ok) {
    for (const fault of result.faults) {
      await writeOut(stderr, `${formatFault(fault)}\n`);
    }
    return 2;
  }
  const text =
    json === true
      ? `${JSON.stringify(describeConfig(result.config), undefined, 2)}\n`
      : await formatConfig(result.config);
  await writeOut(stdout, text);
  return 0;
}
