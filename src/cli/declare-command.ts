import type { Readable, Writable } from "node:stream";
import { type Command, Option } from "commander";

/** What a command reads and writes. */
export interface CommandIo {
  readonly env: NodeJS.ProcessEnv;
  /** Absolute. */
  readonly cwd: string;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
}

/** The program that commands are declared in. */
export interface CommandLine {
  readonly program: Command;
  readonly io: CommandIo;
  /** Called with the exit code when a command has ended. */
  readonly setExitCode: (code: number) => void;
}

/** Declares a command with its examples, which end its `--help`. */
export function declareCommand(
  { program }: Pick<CommandLine, "program">,
  command: {
    readonly name: string;
    readonly description: string;
    /** Whole command lines, as in `entrepot ls 'docker.io/**'`. */
    readonly examples: readonly string[];
  },
): Command {
  const { name, description, examples } = command;
  const lines = examples.map((example) => `  ${example}\n`).join("");
  return program
    .command(name)
    .description(description)
    .addHelpText("after", `\nExamples:\n${lines}`.trimEnd());
}

/** The option that names the configuration file, in every command that reads it. */
export const CONFIG_OPTION = new Option(
  "--config <file>",
  "configuration file (else $ENTREPOT_CONFIG, /etc/entrepot/entrepot.yaml, or none)",
);
