import type { Command } from "commander";
import {
  type CommandLine,
  CONFIG_OPTION,
  declareCommand,
} from "../declare-command.ts";
import type { ImageCommand } from "./images.ts";

interface CommonOptions {
  readonly config?: string;
  readonly json?: true;
}

const REF =
  "registry/repository:tag or registry/repository@digest, as in docker.io/library/alpine:3.20; alpine:3.20 is of the default registry, alpine its latest";
const HOSTED_TAG =
  "registry/repository:tag of a hosted registry, as in local/team/app:1";
const REF_OR_PATTERN = `${REF}; or a glob over registry/repository[:tag], as in 'docker.io/library/*'`;

const HOSTED_GROUP = "Hosted repositories:";

type Add = (
  name: string,
  description: string,
  examples: readonly string[],
) => Command;
type Run = (command: ImageCommand, options: CommonOptions) => Promise<void>;

/** Adds the commands that work on stored images. */
export function addImageCommands(commandLine: CommandLine): void {
  const { io, setExitCode } = commandLine;
  const run: Run = async (command, options) => {
    const { runImageCommand } = await import("./images.ts");
    const { confirmOnTerminal } = await import("../confirm.ts");
    setExitCode(
      await runImageCommand({
        ...io,
        command,
        configFile: options.config,
        json: options.json === true,
        confirm: (question) => confirmOnTerminal(io.stdin, io.stderr, question),
      }),
    );
  };
  const add: Add = (name, description, examples) =>
    declareCommand(commandLine, { name, description, examples })
      .addOption(CONFIG_OPTION)
      .option("--json", "print JSON");
  addReads(add, run);
  addChanges(add, run);
  addEviction(add, run);
  addHosted(add, run);
}

function addReads(add: Add, run: Run): void {
  add("ls", "list the images in the cache", [
    "entrepot ls",
    "entrepot ls 'docker.io/library/*'",
    "entrepot ls alpine --json",
  ])
    .argument(
      "[pattern]",
      "a glob over registry/repository[:tag], or a part of the name",
    )
    .action((pattern: string | undefined, options: CommonOptions) =>
      run({ name: "ls", pattern }, options),
    );

  add("inspect", "show an image and its stored parts", [
    "entrepot inspect alpine:3.20",
    "entrepot inspect ghcr.io/org/app:1 --json",
  ])
    .argument("<ref>", REF)
    .action((ref: string, options: CommonOptions) =>
      run({ name: "inspect", ref }, options),
    );
}

function addChanges(add: Add, run: Run): void {
  const changes = [
    [
      "pin",
      "protect an image from eviction or, if it is hosted, from retention",
      ["entrepot pin alpine:3.20", "entrepot pin 'ghcr.io/org/**:*.*.*'"],
    ],
    [
      "unpin",
      "remove the protection of an image",
      ["entrepot unpin alpine:3.20", "entrepot unpin 'docker.io/library/*'"],
    ],
    [
      "refresh",
      "fetch a tag's digest, referrers and the list of tags from the upstream again",
      ["entrepot refresh alpine", "entrepot refresh 'ghcr.io/org/**'"],
    ],
  ] as const;
  for (const [name, description, examples] of changes) {
    add(name, description, examples)
      .argument("<ref>", REF_OR_PATTERN)
      .action((ref: string, options: CommonOptions) =>
        run({ name, ref }, options),
      );
  }

  add(
    "rm",
    "remove a mirrored image from the cache, or delete a hosted one: a tag with its manifest, its platforms and its referrers, unless something else in the repository names them",
    [
      "entrepot rm alpine:3.20",
      "entrepot rm 'docker.io/library/*:*-rc*' --yes",
    ],
  )
    .argument("<ref>", REF_OR_PATTERN)
    .option(
      "--yes",
      "do not ask before a pattern removes more than half of the cache",
    )
    .action((ref: string, options: CommonOptions & { readonly yes?: true }) =>
      run({ name: "rm", ref, isConfirmed: options.yes === true }, options),
    );
}

function addEviction(add: Add, run: Run): void {
  add(
    "evict",
    "free space now: remove the images that were pulled longest ago",
    ["entrepot evict --dry-run", "entrepot evict --to 10GiB"],
  )
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

function addHosted(add: Add, run: Run): void {
  add(
    "tag",
    "give a stored image, mirrored or hosted, a tag in a hosted repository; no bytes are copied",
    ["entrepot tag alpine:3.20 local/team/alpine:3.20"],
  )
    .helpGroup(HOSTED_GROUP)
    .argument("<source>", REF)
    .argument("<target>", HOSTED_TAG)
    .action((source: string, target: string, options: CommonOptions) =>
      run({ name: "tag", source, target }, options),
    );

  add("untag", "delete a tag of a hosted repository; its manifest stays", [
    "entrepot untag local/team/app:1",
  ])
    .helpGroup(HOSTED_GROUP)
    .argument("<ref>", HOSTED_TAG)
    .action((ref: string, options: CommonOptions) =>
      run({ name: "untag", ref }, options),
    );

  add(
    "gc",
    "apply retention to hosted repositories, and free the space of content that nothing needs",
    ["entrepot gc --dry-run", "entrepot gc"],
  )
    .helpGroup(HOSTED_GROUP)
    .option("--dry-run", "only list what would be deleted and freed")
    .action((options: CommonOptions & { readonly dryRun?: true }) =>
      run({ name: "gc", isDryRun: options.dryRun === true }, options),
    );
}
