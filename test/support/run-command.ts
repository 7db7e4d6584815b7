import { execFile } from "node:child_process";

export interface CommandOptions {
  /** Merged over the environment of the tests. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Default 60 s; then SIGKILL. */
  readonly timeoutMs?: number;
}

export interface CommandOutput {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end.
 *
 * @throws Error with the command and its output if it is missing, fails or takes too long
 */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandOutput> {
  return new Promise((resolve, reject) => {
    const { env, cwd, timeoutMs = 60_000 } = options;
    execFile(
      command,
      args,
      {
        env: { ...process.env, ...env },
        timeout: timeoutMs,
        killSignal: "SIGKILL",
        maxBuffer: 16 * 1024 * 1024,
        ...(cwd === undefined ? {} : { cwd }),
      },
      (error, stdout, stderr) => {
        if (error === null) {
          resolve({ stdout, stderr });
          return;
        }
        const why = error.killed
          ? `took more than ${timeoutMs} ms`
          : `ended with ${error.code ?? error.signal}`;
        const said = [stdout, stderr].filter((text) => text !== "").join("\n");
        reject(
          new Error(`${command} ${args.join(" ")}\n${why}\n${said}`, {
            cause: error,
          }),
        );
      },
    );
  });
}

/**
 * Returns the message of a command that must fail.
 *
 * @throws Error if it does not fail
 */
export async function refusal(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("the command succeeded; expected a refusal");
}
