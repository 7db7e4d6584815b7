import { setImmediate } from "node:timers/promises";
import { Command, CommanderError } from "commander";
import { VERSION } from "../telemetry/version.ts";
import {
  addExamples,
  type CommandIo,
  type CommandLine,
} from "./declare-command.ts";
import { addJobsCommand } from "./content/jobs-command.ts";
import { addWishesCommand } from "./content/wishes-command.ts";
import { addWarmCommand } from "./content/warm-command.ts";
import { FOREIGN_WORDS } from "./foreign-words.ts";
import { addTakeoverCommand } from "./content/takeover/takeover-command.ts";
import { addExportCommand } from "./content/export/export-command.ts";
import { addImportCommand } from "./content/import/import-command.ts";
import { addImageCommands } from "./images/image-commands.ts";
import { addClientConfigCommand } from "./setup/clients/client-config-command.ts";
import { addMirrorCommands } from "./mirror-commands.ts";
import { addCompletionCommand } from "./setup/completion-command.ts";
import { addSetupCommands } from "./setup/setup-commands.ts";
import { writeOut } from "./write-out.ts";

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
  const outputError = watchOutput(io);
  try {
    await parse(program, args);
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed the message; --help and --version end here too.
      code = error.exitCode === 0 ? 0 : 2;
    } else if (error !== outputError()) {
      throw error;
    }
  }
  // A failed write emits its error after the call has returned.
  await setImmediate();
  const failed = outputError();
  if (failed === undefined) return code;
  await writeOut(io.stderr, `entrepot: standard output: ${failed.message}\n`);
  return code === 0 ? 1 : code;
}

/** @throws CommanderError for a faulty command line; what the command throws */
async function parse(program: Command, args: readonly string[]): Promise<void> {
  const [word = ""] = args;
  const isDeclared = program.commands.some((one) => one.name() === word);
  const advice = isDeclared ? undefined : FOREIGN_WORDS.get(word);
  if (advice !== undefined) {
    program.error(`error: unknown command '${word}'\n${advice}`);
  }
  await program.parseAsync(args, { from: "user" });
}

/**
 * Watches standard output for errors, which would end the process without a listener. A reader that
 * has closed the pipe (EPIPE), as in `entrepot --help | head -1`, is not a failure.
 *
 * @returns a function that returns the first error
 */
function watchOutput({ stdout, stderr }: CommandIo): () => Error | undefined {
  let first: Error | undefined;
  stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") first ??= error;
  });
  // No other stream is left for a report.
  stderr.on("error", () => {});
  return () => first;
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
  addExamples(program, [
    "entrepot serve",
    "entrepot status",
    "entrepot ls 'docker.io/library/*'",
    "entrepot help rm",
  ]);
  program.commandsGroup("The mirror:");
  addMirrorCommands(commandLine);
  program.commandsGroup("Images:");
  addImageCommands(commandLine);
  program.commandsGroup("Content in and out:");
  addWarmCommand(commandLine);
  addJobsCommand(commandLine);
  addWishesCommand(commandLine);
  addExportCommand(commandLine);
  addImportCommand(commandLine);
  addTakeoverCommand(commandLine);
  program.commandsGroup("Set-up:");
  addSetupCommands(commandLine);
  addClientConfigCommand(commandLine);
  addCompletionCommand(commandLine);
  return program;
}

function processIo(): CommandIo {
  const { env, stdin, stdout, stderr } = process;
  return { env, cwd: process.cwd(), stdin, stdout, stderr };
}
