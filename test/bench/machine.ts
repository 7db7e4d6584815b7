import { availableParallelism, totalmem } from "node:os";
import { runCommand } from "../support/run-command.ts";

/** Machine and programs of a measurement in general terms, without names and paths. */
export interface Machine {
  readonly date: string;
  readonly platform: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly versions: Readonly<Record<string, string>>;
}

/** Options by which each program prints its version. */
const VERSION_ARGS: Readonly<Record<string, readonly string[]>> = {
  "docker-registry": ["--version"],
  nginx: ["-v"],
  wrk: ["-v"],
  podman: ["--version"],
  ctr: ["--version"],
};

export async function describeMachine(): Promise<Machine> {
  const versions: Record<string, string> = { node: process.versions.node };
  for (const [command, args] of Object.entries(VERSION_ARGS)) {
    const version = await versionOf(command, args);
    if (version !== undefined) versions[command] = version;
  }
  return {
    date: new Date().toISOString().slice(0, 10),
    platform: `${process.platform} ${process.arch}`,
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 1024 ** 3),
    versions,
  };
}

/** @returns names of the programs that can't be started */
export async function missingCommands(
  commands: readonly string[],
): Promise<string[]> {
  const missing: string[] = [];
  for (const command of commands) {
    try {
      await runCommand("sh", ["-c", 'command -v "$1"', "sh", command]);
    } catch {
      missing.push(command);
    }
  }
  return missing;
}

async function versionOf(
  command: string,
  args: readonly string[],
): Promise<string | undefined> {
  // wrk prints its version and exits with an error.
  const said = await runCommand(command, args).then(
    ({ stdout, stderr }) => stdout + stderr,
    (error: unknown) => String(error),
  );
  return /\d+\.\d+(?:\.\d+)?/.exec(said)?.[0];
}
