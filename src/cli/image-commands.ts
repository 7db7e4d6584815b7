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

  const ofOne = [
    ["inspect", "show an image and what is stored of it"],
    ["pin", "never evict an image"],
    ["unpin", "let an image be evicted again"],
    [
      "refresh",
      "ask the upstream again: what a tag points to, referrers, the list of tags",
    ],
    ["rm", "drop an image from the cache"],
  ] as const;
  for (const [name, description] of ofOne) {
    add(name, description)
      .argument("<ref>", REF)
      .action((ref: string, options: CommonOptions) =>
        run({ name, ref }, options),
      );
  }

  add("evict", "make room now: let the images go that were pulled longest ago")
    .option("--to <size>", "what may be kept: 10GiB, 50% or 0")
    .option("--dry-run", "only say what would go")
    .option("--yes", "do not ask before more than half of the cache goes")
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
