import type { Command, Option } from "commander";
import { DeclaredCommand } from "../../../src/cli/declare-command.ts";
import { createProgram } from "../../../src/cli/command-line.ts";
import { code, markdownTable } from "./markdown-table.ts";

/** Describes every command that commander knows, in the order of `--help`. */
export function commandsReference(): string[] {
  const commands = leavesOf(createProgram());
  const overview = markdownTable(
    ["Command", "Does"],
    commands.map((command) => [code(usageOf(command)), command.description()]),
  );
  return [overview, ...commands.flatMap(sectionOf)];
}

function examplesOf(command: Command): string {
  const examples = command instanceof DeclaredCommand ? command.examples : [];
  return ["```sh", ...examples, "```"].join("\n");
}

/** `entrepot tls self-signed` is a command, `entrepot tls` only groups its children. */
export function leavesOf(command: Command): readonly Command[] {
  return command.commands.length === 0
    ? [command]
    : command.commands.flatMap(leavesOf);
}

export function pathOf(command: Command): string {
  const { parent } = command;
  return parent === null
    ? command.name()
    : `${pathOf(parent)} ${command.name()}`;
}

function usageOf(command: Command): string {
  const usage = [pathOf(command)];
  for (const argument of command.registeredArguments) {
    const name = argument.name();
    usage.push(argument.required ? `<${name}>` : `[${name}]`);
  }
  return usage.join(" ");
}

function sectionOf(command: Command): string[] {
  const rows = [
    ...command.registeredArguments.map((argument) => [
      code(argument.name()),
      argument.description,
      "",
    ]),
    ...command.options
      .filter(({ hidden }) => !hidden)
      .map((option) => [
        code(option.flags),
        option.description,
        defaultOf(option),
      ]),
  ];
  return [
    `### ${code(pathOf(command))}`,
    sentence(command.description()),
    markdownTable(["Argument or option", "Meaning", "Default"], rows),
    examplesOf(command),
  ];
}

function defaultOf(option: Option): string {
  if (option.mandatory) return "required";
  const { defaultValue }: { readonly defaultValue?: unknown } = option;
  return typeof defaultValue === "string" ? code(defaultValue) : "";
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
