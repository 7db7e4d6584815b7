import type { Readable, Writable } from "node:stream";
import type { ReadStream } from "node:tty";
import { Command, Option } from "commander";

/** A stream of a command's output. */
export type CommandOutput = Writable & {
  readonly isTTY?: boolean;
  /** Of a terminal, as `rows`. */
  readonly columns?: number;
  readonly rows?: number;
};

/** What a command reads and writes. */
export interface CommandIo {
  readonly env: NodeJS.ProcessEnv;
  /** Absolute. */
  readonly cwd: string;
  readonly stdin: Readable & Partial<Pick<ReadStream, "isTTY" | "setRawMode">>;
  readonly stdout: CommandOutput;
  readonly stderr: CommandOutput;
}

/** The program that commands are declared in. */
export interface CommandLine {
  readonly program: Command;
  readonly io: CommandIo;
  /** Called with the exit code when a command has ended. */
  readonly setExitCode: (code: number) => void;
}

/** A command that is declared with examples. */
export class DeclaredCommand extends Command {
  /** Whole command lines, as in `entrepot ls 'docker.io/**'`. */
  readonly examples: readonly string[];

  constructor(name: string, examples: readonly string[]) {
    super(name);
    this.examples = examples;
  }
}

/** Collects the values of an option that may be repeated. */
export function appendValue(
  value: string,
  values: readonly string[] = [],
): readonly string[] {
  return [...values, value];
}

/** Declares a command with its examples, which end its `--help`. */
export function declareCommand(
  { program }: Pick<CommandLine, "program">,
  command: {
    readonly name: string;
    readonly description: string;
    /** Whole command lines, as in `entrepot ls 'docker.io/**'` or `cat refs.txt | entrepot warm -`. */
    readonly examples: readonly string[];
  },
): DeclaredCommand {
  const { name, description, examples } = command;
  const help = `entrepot ${pathOf(program)}${name} --help`;
  const declared = new DeclaredCommand(name, examples)
    .copyInheritedSettings(program)
    .description(description)
    .summary(firstClause(description))
    .showHelpAfterError(`Run '${help}' for usage.`);
  addExamples(declared, examples);
  program.addCommand(declared);
  return declared;
}

/** Ends the help of a command with examples. */
export function addExamples(
  command: Command,
  examples: readonly string[],
): void {
  const lines = examples.map((example) => `  ${example}\n`).join("");
  command.addHelpText("after", `\nExamples:\n${lines}`.trimEnd());
}

/** Returns the part of a description that fits a list of commands. */
export function firstClause(description: string): string {
  const [clause = ""] = description.split(/[;:(]/);
  return clause.trim();
}

/** Returns the names of the commands that group others, each followed by a space. */
function pathOf(program: Command): string {
  return program.parent === null
    ? ""
    : `${pathOf(program.parent)}${program.name()} `;
}

/** The option that names the configuration file, in every command that reads it. */
export const CONFIG_OPTION = new Option(
  "--config <file>",
  "configuration file (else $ENTREPOT_CONFIG, /etc/entrepot/entrepot.yaml, or none)",
);
