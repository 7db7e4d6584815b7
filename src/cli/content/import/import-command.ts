import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../../declare-command.ts";

interface ImportCommandOptions {
  readonly into?: string;
  readonly name?: string;
  readonly pin?: true;
  readonly config?: string;
  readonly json?: true;
}

/** Declares `import`. */
export function addImportCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "import",
    description:
      "store the images of a bundle, an OCI image layout that entrepot, skopeo, podman, buildah, docker, crane, oras or hauler wrote; every blob is verified",
    examples: [
      "entrepot import bundle.tar",
      "entrepot import images.tar.zst --into local/site --pin",
      "entrepot import layout/ --name quay.io/team/app:1",
      "zcat bundle.tar.gz | entrepot import -",
    ],
  })
    .argument(
      "<bundle>",
      "an archive, also with gzip or zstd around it; the folder of a layout; or - for an archive on standard input",
    )
    .option(
      "--into <path>",
      "store the images in a hosted registry, below this path and without their registry's name: with local/team, docker.io/library/a:1 becomes local/team/library/a:1",
    )
    .option(
      "--name <ref>",
      "the name of the only image; or the repository of images that have a tag and no name, as skopeo and oras write them",
    )
    .option("--pin", "never evict the images")
    .addOption(CONFIG_OPTION)
    .option("--json", "print JSON")
    .action(async (bundle: string, options: ImportCommandOptions) => {
      const { runImport } = await import("./import.ts");
      const { stopSignal } = await import("../stop-signal.ts");
      using stop = stopSignal();
      setExitCode(
        await runImport({
          ...io,
          bundle,
          into: options.into,
          name: options.name,
          isPinned: options.pin === true,
          configFile: options.config,
          json: options.json === true,
          signal: stop.signal,
        }),
      );
    });
}
