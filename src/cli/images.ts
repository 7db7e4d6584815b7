import { RootInUseError } from "../storage/storage-root-errors.ts";
import { homedir } from "node:os";
import type { Writable } from "node:stream";
import { readStorageSpace } from "../app/open-storage.ts";
import type { Config } from "../config/config.ts";
import { formatFault } from "../config/fault.ts";
import { formatListenAddress } from "../config/schema/forms.ts";
import { loadConfig } from "../config/load.ts";
import { parseAmount, SIZE_EXPECTED } from "../config/schema/units.ts";
import { parseImageReference } from "../images/image-reference.ts";
import type {
  EvictionReport,
  ImageDetail,
  ImageSummary,
} from "../images/images.ts";
import { createRoutes } from "../routing/routes.ts";
import type { Confirm } from "./confirm.ts";
import {
  Failed,
  type ImageBackend,
  openImageBackend,
} from "./image-backend.ts";
import { writeOut } from "./write-out.ts";
import { messageOf } from "../telemetry/error-record.ts";

/** The number of platforms that a line of the list names. */
const MAX_NAMED_PLATFORMS = 3;

/** One of the commands that work on cached images. */
export type ImageCommand =
  | { readonly name: "ls"; readonly pattern: string | undefined }
  | {
      readonly name: "inspect" | "pin" | "unpin" | "refresh" | "rm";
      readonly ref: string;
    }
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
  readonly stdout: Writable;
  readonly stderr: Writable;
  readonly confirm: Confirm;
}

/** The result of a command, as JSON and as text. */
interface Outcome {
  readonly json: unknown;
  readonly text: string;
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
  const { env, cwd, stdout, stderr, command } = options;
  const loaded = await loadConfig({
    configFile: options.configFile,
    env,
    cwd,
    home: homedir(),
  });
  if (!loaded.ok) {
    for (const fault of loaded.faults) stderr.write(`${formatFault(fault)}\n`);
    return 2;
  }
  const { config } = loaded;
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
        : outcome.text,
    );
    return 0;
  } catch (error) {
    await writeOut(stderr, `entrepot: ${failureText(error, config)}\n`);
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
  if (command.name === "ls") {
    return async (backend) => listing(await backend.list(command.pattern));
  }
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
  const { name, ref } = command;
  const { upstreams, upstreamTemplates } = config;
  const routes = createRoutes(upstreams, upstreamTemplates);
  if (parseImageReference(ref, routes) === undefined) {
    throw new Failed(
      2,
      `got ${ref}; expected upstream/repository:tag or upstream/repository@digest`,
    );
  }
  const cached = <T>(found: T | undefined): T => {
    if (found === undefined) throw new Failed(1, `${ref} is not cached`);
    return found;
  };
  switch (name) {
    case "inspect":
      return async (backend) => inspection(cached(await backend.inspect(ref)));
    case "pin":
    case "unpin":
      return async (backend) => {
        const pinned = name === "pin";
        cached(await backend.setPinned(ref, pinned));
        return {
          json: { ref, pinned },
          text: `${ref} ${pinned ? "is pinned" : "is no longer pinned"}\n`,
        };
      };
    case "refresh":
      return async (backend) => {
        const found = await backend.refresh(ref);
        if (found === undefined) {
          throw new Failed(1, `${ref} is not found in its registry`);
        }
        const { digest, changed } = found;
        return {
          json: { ref, digest, changed },
          text: `${ref} ${changed ? "is now" : "is still"} ${digest}\n`,
        };
      };
    case "rm":
      return async (backend) => {
        const freedBytes = cached(await backend.remove(ref));
        return {
          json: { ref, freedBytes },
          text: `removed ${ref}; ${sizeText(freedBytes)} freed\n`,
        };
      };
    default:
      return name satisfies never;
  }
}

/**
 * Asks for confirmation before more than half of the cache is evicted.
 *
 * @throws Failed if the operator declines or cannot be asked
 */
async function confirmEviction(
  backend: ImageBackend,
  toBytes: number | undefined,
  confirm: Confirm,
): Promise<void> {
  const storedBytes = await backend.storedBytes();
  const plan = await backend.evict({ toBytes, isDryRun: true });
  if (plan.freedBytes * 2 <= storedBytes) return;
  const amount = `${plan.images.length} images, ${sizeText(plan.freedBytes)} of ${sizeText(storedBytes)} in the cache`;
  const confirmation = await confirm(`Evict ${amount}?`);
  if (confirmation === "agreed") return;
  throw confirmation === "declined"
    ? new Failed(1, "declined; nothing was removed")
    : new Failed(
        2,
        `evict would remove ${amount}; nothing was removed. Add --yes to confirm, or --dry-run to list the images`,
      );
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

function listing(images: readonly ImageSummary[]): Outcome {
  const rows = images.map((image) => [
    image.ref,
    sizeText(image.sizeBytes),
    image.pulledAt.slice(0, 16).replace("T", " "),
    platformsText(image.platforms),
    [image.pinned ? "pinned" : "", image.complete ? "" : "incomplete"]
      .filter((word) => word !== "")
      .join(", "),
  ]);
  return {
    json: images,
    text: table([["IMAGE", "SIZE", "PULLED", "PLATFORMS", ""], ...rows]),
  };
}

function inspection(image: ImageDetail): Outcome {
  const head = [
    ["ref", image.ref],
    ["digest", image.digest],
    ["media type", image.mediaType],
    ["size", sizeText(image.sizeBytes)],
    ["complete", image.complete ? "yes" : "no"],
    ["pinned", image.pinned ? "yes" : "no"],
    ["pulled", image.pulledAt],
  ];
  const platforms = image.platforms.map(({ platform, digest, complete }) => [
    platform,
    complete ? "complete" : "incomplete",
    digest,
  ]);
  const parts = image.graph.map((part) => [
    part.digest,
    part.sizeBytes === null ? "?" : sizeText(part.sizeBytes),
    part.stored ? "stored" : "absent",
    part.kind,
    part.mediaType ?? "",
  ]);
  const tables = [head, platforms, parts].filter((rows) => rows.length > 0);
  return { json: image, text: tables.map(table).join("\n") };
}

/** Names some of the complete platforms and counts all platforms. */
function platformsText(platforms: ImageSummary["platforms"]): string {
  const complete = platforms.filter((one) => one.complete);
  const names = complete
    .slice(0, MAX_NAMED_PLATFORMS)
    .map(({ platform }) => platform)
    .join(", ");
  return complete.length === platforms.length &&
    complete.length <= MAX_NAMED_PLATFORMS
    ? names
    : `${names} (${complete.length} of ${platforms.length})`.trimStart();
}

function evictionOutcome(report: EvictionReport, dryRun: boolean): Outcome {
  const rows = report.images.map((image) => [
    image.ref,
    sizeText(image.sizeBytes),
    image.pulledAt.slice(0, 16).replace("T", " "),
    image.reason,
  ]);
  const sum = `${report.images.length} images, ${sizeText(report.freedBytes)} ${dryRun ? "would be freed" : "freed"}\n`;
  return {
    json: { dryRun, images: report.images, freedBytes: report.freedBytes },
    text: rows.length === 0 ? sum : `${table(rows)}${sum}`,
  };
}

function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.entries()) {
      widths[at] = Math.max(widths[at] ?? 0, cell.length);
    }
  }
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

/** Formats a size with two or three digits and a unit. */
function sizeText(sizeBytes: number): string {
  let value = sizeBytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) {
      return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    }
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

/** Adds to the message of a root in use why its mirror could not be reached. */
function failureText(error: unknown, { operator }: Config): string {
  if (!(error instanceof RootInUseError)) return messageOf(error);
  const reason =
    operator.listen === undefined
      ? "the operator API is disabled"
      : `no mirror answers at ${formatListenAddress(operator.listen)}, or it requires another operator token`;
  return `${error.message}, and ${reason}`;
}
