import type { Command, Option } from "commander";
import type { ImageCommand } from "./images.ts";

interface CommonOptions {
  readonly config?: string;
  readonly json?: true;
}

const REF =
  "upstream/repository:tag or upstream/repository@digest, as in docker.io/library/alpine:3.20";

/** Adds the commands that work on cached images. */
export function addImageCommands(
  program: Command,
  configOption: Option,
  run: (command: ImageCommand, options: CommonOptions) => Promise<void>,
): void {
  const add = (name: string, description: string): Command =>
    program
      .command(name)
      .description(description)
      .addOption(configOption)
      .option("--json", "print JSON");

  add("ls", "list the images in the cache")
    .argument(
      "[pattern]",
      "a glob over upstream/repository[:tag], or a part of the name",
    )
    .action((pattern: string | undefined, options: CommonOptions) =>
      run({ name: "ls", pattern }, options),
    );

  const imageCommands = [
    ["inspect", "show an image and its stored parts"],
    ["pin", "protect an image from eviction"],
    ["unpin", "remove the protection from eviction"],
    [
      "refresh",
      "fetch a tag's digest, referrers and the list of tags from the upstream again",
    ],
    ["rm", "remove an image from the cache"],
  ] as const;
  for (const [name, description] of imageCommands) {
    add(name, description)
      .argument("<ref>", REF)
      .action((ref: string, options: CommonOptions) =>
        run({ name, ref }, options),
      );
  }

  add("evict", "free space now: remove the images that were pulled longest ago")
    .option("--to <size>", "the size to reduce the cache to: 10GiB, 50% or 0")
    .option("--dry-run", "only list the images that would be removed")
    .option("--yes", "do not ask before more than half of the cache is removed")
    .action(
      (
        options: CommonOptions & {
          readonly to?: string;
          readonly dryRun?: true;
          readonly yes?: true;
        },
      ) =>
        run(
          {
            name: "evict",
            to: options.to,
            isDryRun: options.dryRun === true,
            isConfirmed: options.yes === true,
          },
          options,
        ),
    );
}
