import { Command, CommanderError } from "commander";
import { VERSION } from "../telemetry/version.ts";
import type { CommandIo, CommandLine } from "./declare-command.ts";
import { addImageCommands } from "./images/image-commands.ts";
import { addClientConfigCommand } from "./setup/clients/client-config-command.ts";
import { addMirrorCommands } from "./mirror-commands.ts";
import { addSetupCommands } from "./setup/setup-commands.ts";

/**
 * Runs one command.
 *
 * @param args without the program and the script
 * @returns the exit code: 0 done, 1 damage found or failed, 2 wrong usage or invalid configuration
 */
export async function runCommandLine(
  args: readonly string[],
  io: CommandIo = processIo(),
): Promise<number> {
  let code = 0;
  const program = createProgram(io, (ended) => {
    code = ended;
  });
  try {
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Commander has printed the message; --help and --version end here too.
    return error.exitCode === 0 ? 0 : 2;
  }
  return code;
}

/**
 * Declares every command with its arguments and options; the reference page is generated from it. The
 * code of a command is loaded when it runs.
 *
 * @param setExitCode called when a command has ended
 */
export function createProgram(
  io: CommandIo = processIo(),
  setExitCode: CommandLine["setExitCode"] = () => undefined,
): Command {
  const program = new Command("entrepot")
    .description("A pull-through caching mirror for container registries.")
    .version(VERSION)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
    })
    .showHelpAfterError("Run 'entrepot --help' for usage.");
  const commandLine: CommandLine = { program, io, setExitCode };
  addMirrorCommands(commandLine);
  addImageCommands(commandLine);
  addSetupCommands(commandLine);
  addClientConfigCommand(commandLine);
  return program;
}

function processIo(): CommandIo {
  const { env, stdin, stdout, stderr } = process;
  return { env, cwd: process.cwd(), stdin, stdout, stderr };
}
