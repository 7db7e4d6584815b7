import { Option } from "commander";
import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../declare-command.ts";

/** Formats that `warm` reads. */
const FORMATS = ["list", "skopeo"] as const;

interface Options {
  readonly config?: string;
  readonly format?: (typeof FORMATS)[number];
  readonly json?: true;
}

/** Adds `wishes`. */
export function addWishesCommand(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  declareCommand(commandLine, {
    name: "wishes",
    description:
      "list the images that clients asked for and could not have: offline, denied or absent; those that are stored by now are left out",
    examples: [
      "entrepot wishes",
      "entrepot wishes --format list > wishes.txt",
      "entrepot wishes --format skopeo > sync.yaml",
    ],
  })
    .addOption(CONFIG_OPTION)
    .addOption(
      new Option(
        "--format <format>",
        "print a list for 'entrepot warm' on a connected mirror: one reference per line, or the YAML of skopeo sync",
      ).choices(FORMATS),
    )
    .addOption(new Option("--json", "print JSON").conflicts("format"))
    .action(async (options: Options) => {
      const { runWishes } = await import("./wishes.ts");
      setExitCode(
        await runWishes({
          ...io,
          configFile: options.config,
          format: options.format,
          json: options.json === true,
        }),
      );
    });
}
