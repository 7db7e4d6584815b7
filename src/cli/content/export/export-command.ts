import {
  appendValue,
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../../declare-command.ts";

interface ExportOptions {
  readonly output: string;
  readonly list?: readonly string[];
  readonly platform?: readonly string[];
  readonly withReferrers?: true;
  readonly since?: string;
  readonly config?: string;
  readonly json?: true;
}

/** Declares `export`. */
export function addExportCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "export",
    description:
      "write stored images to a bundle, an OCI image layout, for a site without a network",
    examples: [
      "entrepot export alpine:3 'ghcr.io/acme/**' -o bundle.tar",
      "entrepot export --list images.yaml --platform linux/amd64 --with-referrers -o bundle.tar",
      "entrepot export --list images.yaml --since january.tar -o february.tar",
      "entrepot export alpine:3 -o - | ssh site 'entrepot import -'",
    ],
  })
    .argument(
      "[ref...]",
      "registry/repository:tag or registry/repository@digest, or a glob over registry/repository[:tag]",
    )
    .requiredOption(
      "-o, --output <file>",
      "an archive whose name ends in .tar, a new folder, or - for standard output",
    )
    .option(
      "--list <file>",
      "read references from a list, in any grammar that 'entrepot warm' reads; tags are selected among the stored ones (repeatable)",
      appendValue,
    )
    .option(
      "--platform <os/arch>",
      "only this platform, as in linux/arm64 (repeatable; default: every platform that is completely stored). An index keeps the bytes and the digest that it was published with; the manifests of other platforms are left out, so clients must ask for a platform that is there, not for all",
      appendValue,
    )
    .option(
      "--with-referrers",
      "also export signatures, SBOMs and other referrers, and cosign's tags",
    )
    .option(
      "--since <bundle>",
      "leave out every blob that an earlier bundle holds: an archive, a folder, or its index.json",
    )
    .addOption(CONFIG_OPTION)
    .option("--json", "print JSON")
    .action(async (refs: readonly string[], options: ExportOptions) => {
      const { runExport } = await import("./export.ts");
      const { stopSignal } = await import("../stop-signal.ts");
      using stop = stopSignal();
      setExitCode(
        await runExport({
          ...io,
          refs,
          lists: options.list ?? [],
          output: options.output,
          platforms: options.platform ?? [],
          withReferrers: options.withReferrers === true,
          since: options.since,
          configFile: options.config,
          json: options.json === true,
          signal: stop.signal,
        }),
      );
    });
}
