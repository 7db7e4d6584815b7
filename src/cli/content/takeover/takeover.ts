import { resolve } from "node:path";
import type { Config } from "../../../config/config.ts";
import { findDistributionTree } from "../../../images/takeover/distribution-folder.ts";
import { takeOverFolder } from "../../../images/takeover/take-over-folder.ts";
import type {
  TakeoverCounts,
  TakeoverProblem,
} from "../../../images/takeover/takeover.ts";
import { StorageError } from "../../../storage/blob-store.ts";
import { RootInUseError } from "../../../storage/storage-root-errors.ts";
import { messageOf } from "../../../telemetry/error-record.ts";
import { CommandAudit } from "../../command-audit.ts";
import { loadCommandConfig } from "../../command-config.ts";
import type { CommandIo, CommandOutput } from "../../declare-command.ts";
import { Failed } from "../../images/image-backend.ts";
import { ProgressLine } from "../../output/progress-line.ts";
import { writeOut } from "../../write-out.ts";
import { stopSignal } from "../stop-signal.ts";
import { problemText, progressText, takeoverText } from "./takeover-output.ts";
import {
  openTakeover,
  readTarget,
  type TakeoverRequest,
  targetText,
} from "./takeover-target.ts";

export interface TakeoverCommand extends CommandIo {
  readonly dir: string | undefined;
  readonly upstream: string | undefined;
  readonly into: string | undefined;
  readonly registryConfig: string | undefined;
  readonly isDryRun: boolean;
  readonly configFile: string | undefined;
  readonly json: boolean;
}

/** Problems that the JSON report names; all are printed to stderr. */
const MAX_LISTED_PROBLEMS = 10_000;

/**
 * Takes over a folder, or translates a configuration.
 *
 * @returns the exit code: 0 all was taken over; 1 something was not, the storage is in use, or the
 *   command was stopped; 2 wrong usage, an invalid configuration, or the storage could not be opened
 */
export async function runTakeover(command: TakeoverCommand): Promise<number> {
  const { cwd, stdout, stderr } = command;
  try {
    if (command.registryConfig !== undefined) {
      checkOnlyTranslation(command);
      const { translateRegistryConfig } =
        await import("../registry-config/registry-config.ts");
      const file = resolve(cwd, command.registryConfig);
      await writeOut(stdout, await translateRegistryConfig(file));
      return 0;
    }
    const config = await loadCommandConfig(command);
    return config === undefined ? 2 : await takeOver(command, config);
  } catch (error) {
    await writeOut(stderr, `entrepot: ${failureText(error)}\n`);
    if (error instanceof Failed) return error.exitCode;
    return error instanceof RootInUseError || isFull(error) ? 1 : 2;
  }
}

/** @throws Failed */
function checkOnlyTranslation({
  dir,
  upstream,
  into,
  isDryRun,
}: TakeoverCommand): void {
  if ((dir ?? upstream ?? into) !== undefined || isDryRun) {
    throw new Failed(
      2,
      "--registry-config only prints a configuration; expected neither a folder nor --upstream, --into or --dry-run",
    );
  }
}

interface TakeoverReport {
  readonly counts: TakeoverCounts;
  /** The first of them. */
  readonly problems: readonly TakeoverProblem[];
  readonly warnings: readonly string[];
}

/** @throws Failed; RootInUseError, StorageError, IndexError */
async function takeOver(
  command: TakeoverCommand,
  config: Config,
): Promise<number> {
  const { dir, cwd, stdout, stderr, isDryRun, json } = command;
  if (dir === undefined) {
    throw new Failed(
      2,
      "expected the storage folder of the registry, as in 'entrepot takeover /var/lib/registry --upstream docker.io'",
    );
  }
  const target = readTarget(command, config);
  const source = resolve(cwd, dir);
  const tree = await findDistributionTree(source);
  if (tree === undefined) {
    throw new Failed(
      2,
      `got ${source}; expected the storage folder of a Distribution registry, which has docker/registry/v2 with the folders blobs and repositories`,
    );
  }
  const audit = new CommandAudit(config.audit?.file, stderr);
  if (!isDryRun) await audit.open();
  const taken = await takeOverTree(config, { target, tree, isDryRun }, stderr);
  const { counts, problems, warnings } = taken;
  const name = targetText(target);
  if (!isDryRun) {
    const { tags, manifests, blobs, bytes } = counts;
    audit.record({
      event: "taken-over",
      client: "command-line",
      source,
      target: name,
      tags,
      manifests,
      blobs,
      bytes,
    });
  }
  await audit.close();
  for (const warning of warnings) {
    await writeOut(stderr, `entrepot: ${warning}\n`);
  }
  await writeOut(
    stdout,
    json
      ? `${JSON.stringify({ source, target: name, dryRun: isDryRun, ...counts, problems, warnings }, undefined, 2)}\n`
      : takeoverText({ source, target: name, isDryRun, counts }),
  );
  return counts.problemCount === 0 ? 0 : 1;
}

/**
 * Takes a folder over, and prints its problems. What was taken over before a stop stays.
 *
 * @throws Failed if the command is stopped; RootInUseError, StorageError, IndexError
 */
async function takeOverTree(
  config: Config,
  request: TakeoverRequest,
  stderr: CommandOutput,
): Promise<TakeoverReport> {
  const problems: TakeoverProblem[] = [];
  const progress = new ProgressLine(stderr);
  using stop = stopSignal(
    new Failed(1, "stopped; the same command continues where it stopped"),
  );
  const opened = await openTakeover(config, request);
  try {
    const counts = await takeOverFolder({
      tree: request.tree,
      target: opened.target,
      signal: stop.signal,
      onProblem: (problem) => {
        if (problems.length < MAX_LISTED_PROBLEMS) problems.push(problem);
        progress.print(`${problemText(problem)}\n`);
      },
      onProgress: (state) =>
        progress.show((seconds) => progressText(state, seconds)),
    });
    return { counts, problems, warnings: await opened.findWarnings(counts) };
  } finally {
    progress.end();
    await opened.close();
  }
}

function failureText(error: unknown): string {
  if (error instanceof RootInUseError) {
    return `${error.message}; stop the mirror first: a take-over works on its storage root`;
  }
  return isFull(error)
    ? `${messageOf(error)}; make room on the disk of the storage root, then the same command continues`
    : messageOf(error);
}

function isFull(error: unknown): boolean {
  return (
    error instanceof StorageError && /^(?:ENOSPC|EDQUOT)$/.test(error.code)
  );
}
