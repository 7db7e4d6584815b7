import {
  type CompletedCommand,
  type CompletedOption,
  type CompletedValue,
  withDescendants,
} from "./completion-model.ts";

/** Returns the completion script for fish. */
export function fishCompletion(program: CompletedCommand): string {
  const lines = withDescendants(program).flatMap(linesOf);
  return `# Completion of entrepot for fish. To load it: entrepot completion fish | source

# Succeeds if the command line begins with the command that the arguments name.
function __entrepot_in
    set -l words (commandline -opc)
    set -l count (count $argv)
    set -e words[1]
    test (count $words) -ge $count; and test "$words[1..$count]" = "$argv"
end

# Succeeds if the command line is the command that the arguments name, and nothing else.
function __entrepot_at
    set -l words (commandline -opc)
    set -e words[1]
    test "$words" = "$argv"
end

function __entrepot_refs
    set -l words (commandline -opc)
    set -l config
    set -l at (contains -i -- --config $words); and set config --config $words[(math $at + 1)]
    entrepot completion fish --refs (commandline -ct) $config 2>/dev/null </dev/null
end

complete -c entrepot -f
${lines.join("\n")}
`;
}

function linesOf(command: CompletedCommand): string[] {
  const path = command.path.join(" ");
  // A group, as the program itself is one, ends where the name of its command begins.
  const test = command.children.length > 0 ? "__entrepot_at" : "__entrepot_in";
  const isHere = quoted(`${test} ${path}`.trimEnd());
  return [
    ...command.children.map((child) =>
      completion(isHere, [
        `-a ${quoted(child.path.at(-1) ?? "")}`,
        `-d ${quoted(child.description)}`,
      ]),
    ),
    ...command.options.map((option) => completion(isHere, optionParts(option))),
    // Fish does not count operands: each kind once.
    ...[...new Set(command.operands.map(operandParts))]
      .filter((parts) => parts !== "")
      .map((parts) => completion(isHere, [parts])),
  ];
}

function completion(condition: string, parts: readonly string[]): string {
  return ["complete -c entrepot -n", condition, ...parts].join(" ");
}

function optionParts({ flags, description, value }: CompletedOption): string[] {
  const names = flags.map((flag) =>
    flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
  );
  return [
    ...names,
    ...(value === undefined ? [] : [`-r ${operandParts(value)}`.trimEnd()]),
    `-d ${quoted(description)}`,
  ];
}

function operandParts({ kind, choices }: CompletedValue): string {
  switch (kind) {
    case "file":
      return "-F";
    case "folder":
      return "-a '(__fish_complete_directories (commandline -ct))'";
    case "ref":
      return "-a '(__entrepot_refs)'";
    case "choice":
      return `-a ${quoted(choices.join(" "))}`;
    case "text":
      return "";
    default:
      return kind satisfies never;
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll(/['\\]/g, "\\$&")}'`;
}
