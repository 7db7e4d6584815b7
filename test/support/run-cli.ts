import { Readable } from "node:stream";
import { runCommandLine } from "../../src/cli/command-line.ts";
import { CollectedOutput } from "./collected-output.ts";

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command in this process, without a terminal. */
export async function runCli(
  cwd: string,
  ...args: readonly string[]
): Promise<CliResult> {
  const stdout = new CollectedOutput();
  const stderr = new CollectedOutput();
  const stdin = Readable.from([]);
  const io = { env: {}, cwd, stdin, stdout, stderr };
  const code = await runCommandLine(args, io);
  return { code, stdout: stdout.text, stderr: stderr.text };
}
