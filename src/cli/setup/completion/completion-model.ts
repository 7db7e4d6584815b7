import type { Argument, Command, Option } from "commander";
import { firstClause } from "../../declare-command.ts";
import { cutText } from "../../output/table.ts";

/** A value that a shell completes. */
export interface CompletedValue {
  readonly name: string;
  readonly kind: "file" | "folder" | "ref" | "choice" | "text";
  /** Of the kind `choice`. */
  readonly choices: readonly string[];
  readonly isRepeated: boolean;
}

export interface CompletedOption {
  /** `--json`, or `-o` and `--output`. */
  readonly flags: readonly string[];
  readonly description: string;
  /** Undefined for a switch. */
  readonly value: CompletedValue | undefined;
}

/** A command as the completion of a shell needs it. */
export interface CompletedCommand {
  /** Without the program: `["tls", "self-signed"]`; empty for the program itself. */
  readonly path: readonly string[];
  readonly description: string;
  readonly options: readonly CompletedOption[];
  readonly operands: readonly CompletedValue[];
  /** The commands that it groups. */
  readonly children: readonly CompletedCommand[];
}

const MAX_DESCRIPTION = 70;
const HELP: CompletedOption = {
  flags: ["--help"],
  description: "display help",
  value: undefined,
};

/** Describes a program, or one of its commands, with everything it groups. */
export function completedCommand(
  command: Command,
  path: readonly string[] = [],
): CompletedCommand {
  return {
    path,
    description: shortText(command.description()),
    options: [
      ...command.options.filter(({ hidden }) => !hidden).map(completedOption),
      HELP,
    ],
    operands: command.registeredArguments.map(completedOperand),
    children: command.commands.map((child) =>
      completedCommand(child, [...path, child.name()]),
    ),
  };
}

/** Lists a command and everything it groups. */
export function withDescendants(
  command: CompletedCommand,
): readonly CompletedCommand[] {
  return [command, ...command.children.flatMap(withDescendants)];
}

function completedOption(option: Option): CompletedOption {
  const { flags, description, short, long, variadic } = option;
  const [, name] = /[<[]([^>\].]+)/.exec(flags) ?? [];
  return {
    flags: [short, long].filter((flag) => flag !== undefined),
    description: shortText(description),
    value:
      name === undefined
        ? undefined
        : completedValue(name, option.argChoices, variadic),
  };
}

function completedOperand(argument: Argument): CompletedValue {
  return completedValue(
    argument.name(),
    argument.argChoices,
    argument.variadic,
  );
}

function completedValue(
  name: string,
  choices: readonly string[] = [],
  isRepeated: boolean,
): CompletedValue {
  return { name, kind: kindOf(name, choices), choices, isRepeated };
}

/** Decides by the names that arguments have in the help of commands. */
function kindOf(
  name: string,
  choices: readonly string[],
): CompletedValue["kind"] {
  if (choices.length > 0) return "choice";
  if (/\b(?:file|list|bundle)\b/i.test(name)) return "file";
  if (/\b(?:ref|pattern|source|target)\b/i.test(name)) return "ref";
  return /\b(?:dir|folder)\b/i.test(name) ? "folder" : "text";
}

/** Returns the part of a description that fits a menu. */
function shortText(description: string): string {
  return cutText(firstClause(description), MAX_DESCRIPTION, "end");
}
