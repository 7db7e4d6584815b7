import { homedir } from "node:os";
import type { Config } from "../../../config/config.ts";
import { RootInUseError } from "../../../storage/storage-root-errors.ts";
import { commandFailure, loadCommandConfig } from "../../command-config.ts";
import type { CommandIo } from "../../declare-command.ts";
import { Failed } from "../../images/image-backend.ts";
import { countText, sizeText } from "../../output/amounts.ts";
import { showBytes } from "../../output/byte-progress.ts";
import { ProgressLine } from "../../output/progress-line.ts";
import { writeOut } from "../../write-out.ts";
import { checkPlatforms } from "../check-platforms.ts";
import {
  ArchiveError,
  type BundleTarget,
  marked,
  readTarget,
  writeBundle,
} from "./bundle-target.ts";
import { type ExportSource, openExportSource } from "./export-source.ts";
import { readBundleBase } from "./read-base.ts";
import { readLists } from "../read-lists.ts";

export interface ExportCommand extends CommandIo {
  readonly refs: readonly string[];
  /** Files, or `-`. */
  readonly lists: readonly string[];
  readonly output: string;
  readonly platforms: readonly string[];
  readonly withReferrers: boolean;
  readonly since: string | undefined;
  readonly configFile: string | undefined;
  readonly json: boolean;
  /** Ends the export; nothing is left of it. */
  readonly signal: AbortSignal;
}

/**
 * Writes a bundle of stored images, from a running mirror or from its storage root.
 *
 * @returns the exit code: 0 done; 1 an image is not stored or not complete, or it failed; 2 wrong usage,
 *   invalid configuration, or the storage could not be opened
 */
export async function runExport(command: ExportCommand): Promise<number> {
  const { stderr } = command;
  const config = await loadCommandConfig(command);
  if (config === undefined) return 2;
  try {
    await exportBundle(command, config);
    return 0;
  } catch (error) {
    const message = command.signal.aborted
      ? "the export was stopped"
      : commandFailure(error, config);
    for (const line of message.split("\n")) {
      await writeOut(stderr, `entrepot: ${line}\n`);
    }
    if (error instanceof Failed) return error.exitCode;
    return error instanceof RootInUseError || command.signal.aborted ? 1 : 2;
  }
}

async function exportBundle(
  command: ExportCommand,
  config: Config,
): Promise<void> {
  const { refs, platforms, withReferrers, signal, cwd, stderr } = command;
  if (refs.length + command.lists.length === 0) {
    throw new Failed(2, "got no reference; expected a REF or --list FILE");
  }
  checkPlatforms(platforms);
  const target = await readTarget(command.output, command);
  const lists = await readLists(command.lists, {
    ...command,
    home: homedir(),
  });
  const since =
    command.since === undefined
      ? undefined
      : await readBundleBase(command.since, cwd, signal);
  const request = { refs, lists, platforms, withReferrers, since };
  const source = await openExportSource(config, request, { stderr, signal });
  const progress = new ProgressLine(stderr);
  const archive = showBytes(source.archive, progress, source.summary.bytes);
  try {
    await writeBundle(marked(archive), target, signal);
  } catch (error) {
    if (!(error instanceof ArchiveError)) throw error;
    throw new Failed(1, await source.explain(error));
  } finally {
    progress.end();
    source.archive.destroy();
    await source.close();
  }
  await report(command, source, target);
}

/** Prints the outcome: to standard error if the bundle went to standard output. */
async function report(
  { output, json, stdout, stderr }: ExportCommand,
  { summary }: ExportSource,
  target: BundleTarget,
): Promise<void> {
  const { images, blobs, bytes, omittedBlobs, omittedBytes, indexDigest } =
    summary;
  const to = target.kind === "stdout" ? "-" : target.path;
  const omitted =
    omittedBlobs === 0
      ? ""
      : `; ${countText(omittedBlobs, "blob", "blobs")}, ${sizeText(omittedBytes)}, left out`;
  const text = json
    ? `${JSON.stringify({ output: to, images, blobs, bytes, omittedBlobs, omittedBytes, indexDigest }, undefined, 2)}\n`
    : `exported ${countText(images, "image", "images")} to ${to === "-" ? "standard output" : output}: ${countText(blobs, "blob", "blobs")}, ${sizeText(bytes)}${omitted}\n`;
  await writeOut(target.kind === "stdout" ? stderr : stdout, text);
}
