import {
  type CompletedCommand,
  type CompletedValue,
  withDescendants,
} from "./completion-model.ts";

/** Returns the completion script for bash, from version 3.2 on. */
export function bashCompletion(program: CompletedCommand): string {
  const commands = withDescendants(program);
  return `# Completion of entrepot for bash. To load it: source <(entrepot completion bash)

# Prints the kind of an option's value; nothing for a switch.
_entrepot_value() {
  case "$1" in
${commands.flatMap(valueCases).join("\n")}
  esac
}

_entrepot() {
  local line=\${COMP_LINE:0:COMP_POINT}
  local path='' kind='' config='' option='' cur='' word='' list='' breaks='' typed=''
  local -a parts
  local -i operands=0
  read -ra parts <<<"$line"
  if [[ $line != *[[:space:]] ]]; then
    cur=\${parts[\${#parts[@]} - 1]}
    unset "parts[\${#parts[@]} - 1]"
  fi
  cur=\${cur#[\\'\\"]}
  for word in "\${parts[@]:1}"; do
    if [[ -n $kind ]]; then
      [[ $option == --config ]] && config=$word
      kind=''
      continue
    fi
    case "$path $word" in
${commands.flatMap(pathCases).join("\n")}
    *' --config='*) config=\${word#*=} ;;
    *' -'*)
      option=$word
      kind=$(_entrepot_value "$path $option")
      ;;
    *) operands+=1 ;;
    esac
  done
  if [[ -z $kind && $cur == --*=* ]]; then
    kind=$(_entrepot_value "$path \${cur%%=*}")
    cur=\${cur#*=}
  elif [[ -z $kind && $cur == -* ]]; then
    case "$path" in
${commands.map(optionCase).join("\n")}
    esac
  elif [[ -z $kind ]]; then
    case "$path $operands" in
${commands.flatMap(operandCases).join("\n")}
    esac
  fi
  list=\${kind#* }
  COMPREPLY=()
  while IFS= read -r word; do
    [[ -n $word ]] && COMPREPLY+=("$word")
  done < <(
    case "$kind" in
    choice*) compgen -W "$list" -- "$cur" ;;
    file) compgen -f -- "$cur" ;;
    folder) compgen -d -- "$cur" ;;
    ref) entrepot completion bash --refs "$cur" \${config:+--config "$config"} 2>/dev/null </dev/null ;;
    esac
  )
  case "$kind" in
  file | folder) compopt -o filenames 2>/dev/null ;;
  esac
  # Readline replaces only what follows the last of its word breaks.
  breaks=\${COMP_WORDBREAKS//[^:@=]/}
  if [[ -n $breaks ]]; then
    typed=\${cur%"\${cur##*[$breaks]}"}
    [[ -n $typed ]] && COMPREPLY=("\${COMPREPLY[@]#"$typed"}")
  fi
  return 0
}

complete -F _entrepot entrepot
`;
}

function pathText({ path }: CompletedCommand): string {
  return path.join(" ");
}

function kindText({ kind, choices }: CompletedValue): string {
  return kind === "choice" ? `choice ${choices.join(" ")}` : kind;
}

function valueCases(command: CompletedCommand): string[] {
  return command.options.flatMap(({ flags, value }) => {
    if (value === undefined) return [];
    const patterns = flags.map((flag) => `'${pathText(command)} ${flag}'`);
    return [`  ${patterns.join(" | ")}) echo '${kindText(value)}' ;;`];
  });
}

function pathCases(command: CompletedCommand): string[] {
  return command.children.map(
    (child) =>
      `    '${pathText(command)} ${child.path.at(-1) ?? ""}') path='${pathText(child)}' ;;`,
  );
}

function optionCase(command: CompletedCommand): string {
  const flags = command.options.flatMap((option) => option.flags);
  return `    '${pathText(command)}') kind='choice ${flags.join(" ")}' ;;`;
}

function operandCases(command: CompletedCommand): string[] {
  const { children, operands } = command;
  if (children.length > 0) {
    const names = children.map(({ path }) => path.at(-1) ?? "");
    return [
      `    '${pathText(command)} 0') kind='choice ${names.join(" ")}' ;;`,
    ];
  }
  return operands.map((operand, at) => {
    const count = operand.isRepeated ? "*" : String(at);
    return `    '${pathText(command)} '${count}) kind='${kindText(operand)}' ;;`;
  });
}
