import { Argument, Option } from "commander";
import type { Shell } from "./completion/completion.ts";
import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../declare-command.ts";

const SHELLS: readonly Shell[] = ["bash", "zsh", "fish"];

/** Adds `completion`. */
export function addCompletionCommand(commandLine: CommandLine): void {
  const { program, io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "completion",
    description:
      "print the completion script of a shell; it completes commands, options and the images of a running mirror",
    examples: [
      "entrepot completion bash > /etc/bash_completion.d/entrepot",
      "entrepot completion zsh > /usr/local/share/zsh/site-functions/_entrepot",
      "entrepot completion fish > ~/.config/fish/completions/entrepot.fish",
    ],
  })
    .addArgument(new Argument("<shell>", "the shell").choices(SHELLS))
    .addOption(CONFIG_OPTION)
    .addOption(
      new Option(
        "--refs <start>",
        "print the references that begin with a text, for the scripts",
      ).hideHelp(),
    )
    .action(
      async (
        shell: Shell,
        options: { readonly refs?: string; readonly config?: string },
      ) => {
        const { runCompletion } = await import("./completion/completion.ts");
        setExitCode(await runCompletion({ io, program }, shell, options));
      },
    );
}
