import { RootInUseError } from "../../storage/storage-root-errors.ts";
import type { Writable } from "node:stream";
import { readStorageSpace } from "../../app/open-storage.ts";
import type { Config } from "../../config/config.ts";
import { parseAmount, SIZE_EXPECTED } from "../../config/schema/units.ts";
import {
  type ImageReference,
  imageText,
  parseImageReference,
} from "../../images/image-reference.ts";
import { createRoutes, type Routes } from "../../routing/routes.ts";
import type { Confirm } from "../confirm.ts";
import { confirmEviction } from "./confirm-removal.ts";
import { actOnHosted, type HostedAction } from "./hosted-actions.ts";
import { expandPattern } from "../../images/image-pattern.ts";
import {
  actOnImage,
  actOnPattern,
  isPattern,
  listMatches,
  noMatchText,
} from "./image-actions.ts";
import { Failed, type ImageBackend } from "./image-backend.ts";
import { evictionOutcome, listing, type Outcome } from "./image-output.ts";
import { askRunningImages } from "./running-images.ts";
import { findRunningMirror } from "../running-mirror.ts";
import { openStoppedImages } from "./stopped-images.ts";
import { commandFailure, loadCommandConfig } from "../command-config.ts";
import type { CommandOutput } from "../declare-command.ts";
import { outputStyle } from "../output/output-style.ts";
import { writeOut } from "../write-out.ts";

/** One of the commands that work on cached images. */
export type ImageCommand =
  | { readonly name: "ls"; readonly pattern: string | undefined }
  | { readonly name: "inspect"; readonly ref: string }
  | {
      readonly name: "pin" | "unpin" | "refresh";
      readonly ref: string;
    }
  | {
      readonly name: "rm";
      readonly ref: string;
      /** `--yes`: do not ask. */
      readonly isConfirmed?: boolean;
    }
  | HostedAction
  | {
      readonly name: "evict";
      /** As given on the command line: `10GiB` or `50%`. */
      readonly to: string | undefined;
      readonly isDryRun: boolean;
      /** `--yes`: do not ask. */
      readonly isConfirmed: boolean;
    };

export interface ImageCommandOptions {
  readonly command: ImageCommand;
  readonly configFile: string | undefined;
  readonly json: boolean;
  readonly env: NodeJS.ProcessEnv;
  /** Absolute. */
  readonly cwd: string;
  readonly stdout: CommandOutput;
  readonly stderr: Writable;
  readonly confirm: Confirm;
}

/**
 * Runs a command through the mirror that runs with the configuration, otherwise on its storage root.
 *
 * @returns the exit code: 0 done; 1 not cached or failed; 2 wrong usage, invalid configuration, or the
 *   storage could not be opened
 */
export async function runImageCommand(
  options: ImageCommandOptions,
): Promise<number> {
  const { env, stdout, stderr, command } = options;
  const config = await loadCommandConfig(options);
  if (config === undefined) return 2;
  try {
    const run = await readCommand(command, config, options.confirm);
    const backend = await openImageBackend(config, stderr);
    let outcome: Outcome;
    try {
      outcome = await run(backend);
    } finally {
      await backend.close();
    }
    await writeOut(
      stdout,
      options.json
        ? `${JSON.stringify(outcome.json, undefined, 2)}\n`
        : outcome.text(outputStyle(stdout, env)),
    );
    const { failures = [] } = outcome;
    for (const failure of failures) {
      await writeOut(stderr, `entrepot: ${failure}\n`);
    }
    return failures.length === 0 ? 0 : 1;
  } catch (error) {
    await writeOut(stderr, `entrepot: ${commandFailure(error, config)}\n`);
    if (error instanceof Failed) return error.exitCode;
    return error instanceof RootInUseError ? 1 : 2;
  }
}

/** Checks the arguments before anything is opened. @throws Failed */
async function readCommand(
  command: ImageCommand,
  config: Config,
  confirm: Confirm,
): Promise<(backend: ImageBackend) => Promise<Outcome>> {
  if (command.name === "evict") {
    const toBytes = await readSize(command.to, config.storage);
    const { isDryRun, isConfirmed } = command;
    return async (backend) => {
      if (!isDryRun && !isConfirmed) {
        await confirmEviction(backend, toBytes, confirm);
      }
      return evictionOutcome(
        await backend.evict({ toBytes, isDryRun }),
        isDryRun,
      );
    };
  }
  const routes = createRoutes(
    config.upstreams,
    config.upstreamTemplates,
    config.hosted,
  );
  if (command.name === "ls") return listImages(command.pattern, routes);
  if (command.name === "gc") {
    return (backend) => actOnHosted(command, backend);
  }
  if (command.name === "tag" || command.name === "untag") {
    if (command.name === "tag") readReference(command.source, routes);
    checkTag(command.name === "tag" ? command.target : command.ref, routes);
    return (backend) => actOnHosted(command, backend);
  }
  const { ref } = command;
  if (isPattern(ref)) {
    if (command.name === "inspect") {
      throw new Failed(
        2,
        `got ${ref}; expected one image, and 'entrepot ls' lists those that match a pattern`,
      );
    }
    const expanded = expandPattern(ref, routes);
    const action = { ...command, expanded };
    return (backend) => actOnPattern(action, backend, confirm);
  }
  const image = readReference(ref, routes);
  const isHosted = routes.findHosted(image.key.upstream) !== undefined;
  if (isHosted && command.name === "refresh") {
    throw new Failed(
      2,
      `${imageText(image)} is hosted here and has no upstream; expected a mirrored image`,
    );
  }
  const fullName = imageText(image);
  return (backend) => actOnImage({ ...command, fullName, isHosted }, backend);
}

/** Lists every image, those with a text in their name, or those that a pattern matches. */
function listImages(
  pattern: string | undefined,
  routes: Routes,
): (backend: ImageBackend) => Promise<Outcome> {
  return async (backend) => {
    if (pattern === undefined) return listing(await backend.list(undefined));
    const expanded = isPattern(pattern)
      ? expandPattern(pattern, routes)
      : undefined;
    const images = await listMatches(backend, pattern, expanded);
    return listing(images, noMatchText(pattern));
  };
}

/** @throws Failed */
function readReference(ref: string, routes: Routes): ImageReference {
  const image = parseImageReference(ref, routes);
  if (image !== undefined) return image;
  throw new Failed(
    2,
    `got ${ref}; expected registry/repository:tag, registry/repository@digest or a name of the default registry`,
  );
}

/** @throws Failed if the text is not a tag of a repository that may be hosted */
function checkTag(ref: string, routes: Routes): void {
  const { key, reference } = readReference(ref, routes);
  if (reference.kind === "digest") {
    throw new Failed(2, `got ${ref}; expected a tag, as in local/team/app:1`);
  }
  if (routes.findUpstream(key.upstream) !== undefined) {
    throw new Failed(
      2,
      `got ${ref}, which is mirrored from ${key.upstream}; expected a tag of a hosted repository, as in local/team/app:1`,
    );
  }
}

/**
 * Opens the running mirror if one answers, otherwise the storage root. Changes there are recorded in
 * `audit.file` as by the mirror.
 *
 * @param stderr receives errors of audit records
 * @throws RootInUseError if a process that does not answer holds the root; Failed, StorageError,
 *   IndexError
 */
async function openImageBackend(
  config: Config,
  stderr: Writable,
): Promise<ImageBackend> {
  const ask = await findRunningMirror(config);
  return ask === undefined
    ? openStoppedImages(config, stderr)
    : askRunningImages(ask);
}

async function readSize(
  text: string | undefined,
  storage: Config["storage"],
): Promise<number | undefined> {
  if (text === undefined) return undefined;
  const amount = parseAmount(text);
  if (amount === undefined) {
    throw new Failed(
      2,
      `--to: got ${text}; expected ${SIZE_EXPECTED}, or a share of the file system such as 50%`,
    );
  }
  if ("bytes" in amount) return amount.bytes;
  const space = await readStorageSpace(storage);
  if (space === undefined) {
    throw new Failed(
      2,
      `--to: got ${text}; the size of the file system of ${storage.root} cannot be read; expected ${SIZE_EXPECTED}`,
    );
  }
  return Math.floor(space.totalBytes * amount.share);
}
