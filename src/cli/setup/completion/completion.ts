import type { Command } from "commander";
import type { CommandIo } from "../../declare-command.ts";
import { writeOut } from "../../write-out.ts";
import { bashCompletion } from "./bash-completion.ts";
import { type CompletedCommand, completedCommand } from "./completion-model.ts";
import { completeRefs } from "./complete-refs.ts";
import { fishCompletion } from "./fish-completion.ts";
import { zshCompletion } from "./zsh-completion.ts";

export type Shell = "bash" | "zsh" | "fish";

const SCRIPTS: Readonly<Record<Shell, (program: CompletedCommand) => string>> =
  { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion };

/**
 * Prints the completion script of a shell, made from the declared commands; or, when such a script
 * asks, the references that begin with a text, one a line.
 *
 * @returns the exit code: 0
 */
export async function runCompletion(
  { io, program }: { readonly io: CommandIo; readonly program: Command },
  shell: Shell,
  options: { readonly refs?: string; readonly config?: string },
): Promise<number> {
  const { refs, config } = options;
  const text =
    refs === undefined
      ? SCRIPTS[shell](completedCommand(program))
      : (await completeRefs(io, config, refs))
          .map((ref) => `${ref}\n`)
          .join("");
  if (text !== "") await writeOut(io.stdout, text);
  return 0;
}
