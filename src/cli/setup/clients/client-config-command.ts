import { Argument } from "commander";
import {
  appendValue,
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../../declare-command.ts";

/** The keys of `ENGINES`, whose code is loaded when the command runs. */
export const ENGINE_NAMES: readonly string[] = [
  "docker",
  "podman",
  "cri-o",
  "containerd",
  "k3s",
  "rke2",
  "buildkit",
];

interface Options {
  readonly config?: string;
  readonly upstream?: readonly string[];
  readonly address?: string;
  readonly caFile?: string;
  readonly only?: true;
  readonly install?: true;
  readonly force?: true;
  readonly root?: string;
  readonly json?: true;
}

/** Adds `client-config`. */
export function addClientConfigCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "client-config",
    description:
      "print the files with which an engine uses this mirror, or install them",
    examples: [
      "entrepot client-config docker",
      "entrepot client-config containerd --address mirror.internal:5000 --install",
      "entrepot client-config podman --upstream docker.io --upstream quay.io --only",
    ],
  })
    .addArgument(new Argument("<engine>", "the engine").choices(ENGINE_NAMES))
    .addOption(CONFIG_OPTION)
    .option(
      "--address <host:port>",
      "the mirror's address for its clients, or the URL of a proxy in front of it (default: from listen and the certificate)",
    )
    .option(
      "--upstream <name>",
      "only this registry; repeatable (default: every registry of the configuration)",
      appendValue,
    )
    .option(
      "--only",
      "no fall-back to the registry itself; not for docker and buildkit, which always have one",
    )
    .option(
      "--ca-file <file>",
      "the certificate of the authority that clients must trust (default: from tls.certificateFile)",
    )
    .option(
      "--install",
      "show the difference and write the files; a file that this command did not write is refused, except that daemon.json is merged",
    )
    .option("--force", "with --install: replace files of other authors")
    .option("--root <dir>", "with --install: a folder in place of /")
    .option("--json", "print JSON")
    .action(async (engine: string, options: Options) => {
      const { runClientConfig } = await import("./client-config.ts");
      setExitCode(
        await runClientConfig({
          engine,
          configFile: options.config,
          upstreams: options.upstream ?? [],
          address: options.address,
          caFile: options.caFile,
          isOnly: options.only === true,
          isInstall: options.install === true,
          force: options.force === true,
          root: options.root,
          json: options.json === true,
          io,
        }),
      );
    });
}
