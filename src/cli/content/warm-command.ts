import { InvalidArgumentError, Option } from "commander";
import {
  LIST_FORMATS,
  type ListFormat,
} from "../../images/lists/list-entry.ts";
import {
  appendValue,
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../declare-command.ts";

interface Options {
  readonly config?: string;
  readonly format?: ListFormat;
  readonly platform?: readonly string[];
  readonly withReferrers?: true;
  readonly concurrency?: number;
  readonly dryRun?: true;
  readonly wait?: true;
  readonly pin?: true;
  readonly json?: true;
  readonly detach?: true;
}

/** Adds `warm`. */
export function addWarmCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "warm",
    description:
      "fetch images into the cache of the running mirror before they are pulled; what is stored is not fetched again",
    examples: [
      "entrepot warm alpine:3.20 ghcr.io/org/app:1",
      "entrepot warm images.yaml --platform linux/amd64 --platform linux/arm64",
      "entrepot warm sync.yaml --dry-run",
      "kubectl get pods -A -o yaml | entrepot warm - --pin",
    ],
  })
    .argument(
      "<list-or-ref...>",
      "lists, read from files or - for standard input: the YAML of skopeo sync, one reference per line, Kubernetes manifests, a compose file, hauler Images or an ImageSetConfiguration; or references, as in alpine:3.20. An argument is a file if it begins with / ./ ../ or ~/, ends in .yaml, .yml, .json, .txt, .list or .lst, or exists and has a path separator or another extension",
    )
    .addOption(CONFIG_OPTION)
    .addOption(
      new Option(
        "--format <format>",
        "the format of the lists (default: recognised by content)",
      ).choices(LIST_FORMATS),
    )
    .option(
      "--platform <os/arch>",
      "fetch this platform of images that have several; repeatable (default: every platform)",
      appendValue,
    )
    .option(
      "--with-referrers",
      "fetch signatures, attestations and SBOMs of the images too",
    )
    .option(
      "--concurrency <n>",
      "images of one registry that are fetched at the same time, 1 to 16 (default: 4)",
      parseConcurrency,
    )
    .option(
      "--dry-run",
      "only print what would be fetched, and how many requests of the pull budget that costs; costs none itself",
    )
    .option(
      "--wait",
      "wait when the rest of a registry's pull budget is kept for clients (default: the images that need it fail)",
    )
    .option("--pin", "never evict the images")
    .option("--detach", "print the job and leave it to the mirror")
    .option("--json", "print JSON")
    .action(async (args: readonly string[], options: Options) => {
      const { runWarm } = await import("./warm.ts");
      setExitCode(
        await runWarm({
          ...io,
          args,
          configFile: options.config,
          format: options.format,
          platforms: options.platform ?? [],
          withReferrers: options.withReferrers === true,
          concurrency: options.concurrency,
          isDryRun: options.dryRun === true,
          wait: options.wait === true,
          pin: options.pin === true,
          isDetached: options.detach === true,
          json: options.json === true,
        }),
      );
    });
}

function parseConcurrency(text: string): number {
  const value = Number(text);
  if (/^\d{1,2}$/.test(text) && value >= 1 && value <= 16) return value;
  throw new InvalidArgumentError(
    `got ${text}; expected a whole number from 1 to 16`,
  );
}
