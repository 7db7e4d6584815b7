import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../../declare-command.ts";

interface Options {
  readonly upstream?: string;
  readonly into?: string;
  readonly registryConfig?: string;
  readonly dryRun?: true;
  readonly config?: string;
  readonly json?: true;
}

/** Adds `takeover`. */
export function addTakeoverCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "takeover",
    description:
      "take over the storage folder of a Distribution registry (registry:2, docker-registry), or translate its configuration; no mirror may be running",
    examples: [
      "entrepot takeover /var/lib/registry --upstream docker.io --dry-run",
      "entrepot takeover /var/lib/registry --upstream docker.io",
      "entrepot takeover /var/lib/registry --into local",
      "entrepot takeover --registry-config /etc/docker/registry/config.yml > entrepot.yaml",
    ],
  })
    .argument(
      "[dir]",
      "the folder that has docker/registry/v2, or that folder itself; nothing in it is changed",
    )
    .option(
      "--upstream <name>",
      "the content is that of a pull-through proxy of this upstream",
    )
    .option(
      "--into <registry[/path]>",
      "the content was pushed, and becomes that of this hosted registry",
    )
    .option(
      "--registry-config <file>",
      "print the configuration of Distribution in this file as one of Entrepot, with what was left out as comments",
    )
    .option("--dry-run", "only report what would be taken over")
    .addOption(CONFIG_OPTION)
    .option("--json", "print JSON")
    .action(async (dir: string | undefined, options: Options) => {
      const { upstream, into, registryConfig } = options;
      const { runTakeover } = await import("./takeover.ts");
      setExitCode(
        await runTakeover({
          ...io,
          dir,
          upstream,
          into,
          registryConfig,
          isDryRun: options.dryRun === true,
          configFile: options.config,
          json: options.json === true,
        }),
      );
    });
}
