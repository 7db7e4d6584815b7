import { homedir } from "node:os";
import type { Writable } from "node:stream";
import type { Config } from "../config/config.ts";
import { formatFault } from "../config/fault.ts";
import { loadConfig } from "../config/load.ts";
import { RootInUseError } from "../storage/storage-root-errors.ts";
import { messageOf } from "../telemetry/error-record.ts";
import { unreachableText } from "./running-mirror.ts";
import { writeOut } from "./write-out.ts";

/**
 * Loads the configuration of a command.
 *
 * @returns undefined if it is invalid; its faults are printed then, and the exit code is 2
 */
export async function loadCommandConfig({
  configFile,
  env,
  cwd,
  stderr,
}: {
  readonly configFile: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** Absolute. */
  readonly cwd: string;
  readonly stderr: Writable;
}): Promise<Config | undefined> {
  const loaded = await loadConfig({ configFile, env, cwd, home: homedir() });
  if (loaded.ok) return loaded.config;
  for (const fault of loaded.faults) {
    await writeOut(stderr, `${formatFault(fault)}\n`);
  }
  return undefined;
}

/** Adds to the message of a root in use why its mirror could not be reached. */
export function commandFailure(error: unknown, { operator }: Config): string {
  if (!(error instanceof RootInUseError)) return messageOf(error);
  return `${error.message}, and ${unreachableText(operator)}`;
}
