import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "./declare-command.ts";
import { addStatusCommand } from "./status/status-command.ts";

/** Adds the commands that work on the whole mirror. */
export function addMirrorCommands(commandLine: CommandLine): void {
  addServe(commandLine);
  addStatusCommand(commandLine);
  addCheckConfig(commandLine);
  addScrub(commandLine);
}

function addServe(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "serve",
    description: "run the mirror",
    examples: [
      "entrepot serve",
      "entrepot serve --config /etc/entrepot/entrepot.yaml --offline",
    ],
  })
    .addOption(CONFIG_OPTION)
    .option("--offline", "connect to no upstream")
    .action(async (options: { config?: string; offline?: true }) => {
      const { runServe } = await import("./serve.ts");
      setExitCode(
        await runServe({
          ...io,
          configFile: options.config,
          offline: options.offline,
        }),
      );
    });
}

function addCheckConfig(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "check-config",
    description: "print the effective configuration, or every fault in it",
    examples: [
      "entrepot check-config --config entrepot.yaml",
      "entrepot check-config --changed",
    ],
  })
    .addOption(CONFIG_OPTION)
    .option("--changed", "print only the keys that differ from the defaults")
    .option("--json", "print JSON instead of YAML")
    .action(
      async (options: { config?: string; changed?: true; json?: true }) => {
        const { runCheckConfig } = await import("./check-config.ts");
        setExitCode(
          await runCheckConfig({
            ...io,
            configFile: options.config,
            json: options.json,
            changed: options.changed,
          }),
        );
      },
    );
}

function addScrub(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "scrub",
    description:
      "compare every blob with its digest, and the index with the blobs",
    examples: ["entrepot scrub", "entrepot scrub --repair --json"],
  })
    .addOption(CONFIG_OPTION)
    .option("--repair", "remove damaged blobs and repair the index")
    .option("--json", "print the report as JSON")
    .action(
      async (options: { config?: string; repair?: true; json?: true }) => {
        const { runScrub } = await import("./scrub.ts");
        setExitCode(
          await runScrub({
            ...io,
            configFile: options.config,
            isRepair: options.repair === true,
            json: options.json === true,
          }),
        );
      },
    );
}
