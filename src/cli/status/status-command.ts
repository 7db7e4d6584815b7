import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../declare-command.ts";

/** Adds `status`. */
export function addStatusCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "status",
    description:
      "show what the running mirror does: hits, saved bytes, space, upstreams with breakers and pull budgets, downloads and jobs",
    examples: ["entrepot status", "entrepot status --watch"],
  })
    .addOption(CONFIG_OPTION)
    .option(
      "--watch",
      "show it again every two seconds; as lines if the output is not a terminal",
    )
    .option("--json", "print JSON; with --watch one document a line")
    .action(
      async (options: {
        readonly config?: string;
        readonly watch?: true;
        readonly json?: true;
      }) => {
        const { runStatus } = await import("./status.ts");
        setExitCode(
          await runStatus({
            io,
            configFile: options.config,
            json: options.json === true,
            watch: options.watch === true,
          }),
        );
      },
    );
}
