import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../declare-command.ts";

interface Options {
  readonly config?: string;
  readonly cancel?: true;
  readonly json?: true;
}

/** Adds `jobs`. */
export function addJobsCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "jobs",
    description:
      "list the jobs of the running mirror, newest first: those that have not ended, and the last hundred that have; or show or cancel one",
    examples: [
      "entrepot jobs",
      "entrepot jobs 0mjuohs00",
      "entrepot jobs 0mjuohs00 --cancel",
    ],
  })
    .argument("[job]", "the id of a job: show its progress and its failures")
    .addOption(CONFIG_OPTION)
    .option("--cancel", "cancel the job; what it fetched stays in the cache")
    .option("--json", "print JSON")
    .action(async (id: string | undefined, options: Options) => {
      const { runJobs } = await import("./jobs.ts");
      setExitCode(
        await runJobs({
          ...io,
          id,
          configFile: options.config,
          isCancelled: options.cancel === true,
          json: options.json === true,
        }),
      );
    });
}
