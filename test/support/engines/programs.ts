import {
  type CommandOptions,
  type CommandOutput,
  runCommand,
} from "../run-command.ts";

/** Where the programs of engines and clients come from. */
export interface Programs {
  /** For the names of tests. */
  readonly name: string;
  /** Put before a command. It replaces itself with the program. */
  readonly prefix: readonly string[];
}

/** Those that are installed on the machine. */
export const INSTALLED: Programs = { name: "installed", prefix: [] };

/** Returns a command and its arguments, as `spawn` takes them. */
export function commandLine(
  programs: Programs,
  program: string,
  args: readonly string[],
): readonly [command: string, args: readonly string[]] {
  const [command = program, ...rest] = [...programs.prefix, program, ...args];
  return [command, rest];
}

/**
 * Runs one of the programs to its end.
 *
 * @throws Error with the command and its output if it is missing, fails or takes too long
 */
export async function runProgram(
  programs: Programs,
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandOutput> {
  return runCommand(...commandLine(programs, program, args), options);
}
