import {
  type CompletedCommand,
  type CompletedOption,
  type CompletedValue,
  withDescendants,
} from "./completion-model.ts";

/** Returns the completion script for zsh: a file of its function path, or one to source. */
export function zshCompletion(program: CompletedCommand): string {
  return `#compdef entrepot
# Completion of entrepot for zsh. To load it: source <(entrepot completion zsh)

_entrepot_refs() {
  local -a refs config
  local -i at=\${words[(I)--config]}
  (( at > 0 )) && config=(--config "\${(Q)words[at + 1]}")
  refs=(\${(f)"$(entrepot completion zsh --refs "\${(Q)PREFIX}" $config 2>/dev/null </dev/null)"})
  compadd -a refs
}

${withDescendants(program).map(functionText).join("\n")}
if [[ $funcstack[1] == _entrepot ]]; then
  _entrepot "$@"
else
  compdef _entrepot entrepot
fi
`;
}

function functionName({ path }: CompletedCommand): string {
  return ["_entrepot", ...path].join("_").replaceAll("-", "_");
}

function functionText(command: CompletedCommand): string {
  const name = functionName(command);
  const specs = command.options.map(optionSpec);
  if (command.children.length === 0) {
    const operands = command.operands.map(operandSpec);
    return `${name}() {
  _arguments ${[...specs, ...operands].join(" \\\n    ")}
}
`;
  }
  const descriptions = command.children.map(
    (child) =>
      `      ${quoted(`${child.path.at(-1) ?? ""}:${child.description}`)}`,
  );
  const cases = command.children.map(
    (child) => `    ${child.path.at(-1) ?? ""}) ${functionName(child)} ;;`,
  );
  return `${name}() {
  local curcontext="$curcontext" state line
  local -A opt_args
  _arguments -C ${[...specs, "'1: :->command'", "'*:: :->operands'"].join(" \\\n    ")}
  case $state in
  command)
    local -a commands
    commands=(
${descriptions.join("\n")}
    )
    _describe -t commands 'command' commands
    ;;
  operands)
    case $line[1] in
${cases.join("\n")}
    esac
    ;;
  esac
}
`;
}

function optionSpec({ flags, description, value }: CompletedOption): string {
  const explanation = `[${escaped(description)}]`;
  const repeat = value?.isRepeated === true ? "*" : "";
  const action = value === undefined ? "" : `:${valueText(value)}`;
  return flags
    .map((flag) => {
      const equals = value !== undefined && flag.startsWith("--") ? "=" : "";
      return quoted(`${repeat}${flag}${equals}${explanation}${action}`);
    })
    .join(" ");
}

function operandSpec(operand: CompletedValue, at: number): string {
  const place = operand.isRepeated ? "*" : String(at + 1);
  return quoted(`${place}:${valueText(operand)}`);
}

function valueText({ name, kind, choices }: CompletedValue): string {
  const action = {
    file: "_files",
    folder: "_files -/",
    ref: "_entrepot_refs",
    choice: `(${choices.join(" ")})`,
    text: " ",
  }[kind];
  return `${escaped(name)}:${action}`;
}

/** Escapes what ends a part of a specification. */
function escaped(text: string): string {
  return text.replaceAll(/[\\[\]:]/g, "\\$&");
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
