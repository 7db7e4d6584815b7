import { Readable } from "node:stream";
import type { Config } from "../../../config/config.ts";
import type {
  ImportOptions,
  ImportReport,
} from "../../../images/bundles/bundle.ts";
import { RegistryError } from "../../../oci/errors.ts";
import { RootInUseError } from "../../../storage/storage-root-errors.ts";
import { messageOf } from "../../../telemetry/error-record.ts";
import { commandFailure, loadCommandConfig } from "../../command-config.ts";
import type { CommandIo } from "../../declare-command.ts";
import { Failed } from "../../images/image-backend.ts";
import { openStoppedServices, SENDER } from "../../images/stopped-images.ts";
import { mirrorStreams } from "../../mirror-streams.ts";
import { countText, sizeText } from "../../output/amounts.ts";
import { showBytes } from "../../output/byte-progress.ts";
import { printable } from "../../output/output-style.ts";
import { ProgressLine } from "../../output/progress-line.ts";
import { findRunningMirror, problemText } from "../../running-mirror.ts";
import { writeOut } from "../../write-out.ts";
import { type OpenedBundle, openBundleSource } from "./bundle-source.ts";

export interface ImportCommand extends CommandIo, ImportOptions {
  /** A file, a folder, or `-`. */
  readonly bundle: string;
  readonly configFile: string | undefined;
  readonly json: boolean;
  /** Ends the import; the next one continues where it was. */
  readonly signal: AbortSignal;
}

/** Images that the text output lists. */
const MAX_LISTED = 100;

/**
 * Imports a bundle into a running mirror, or into the storage root of a stopped one, which is created
 * if nothing was ever stored there.
 *
 * @returns the exit code: 0 done; 1 the bundle is refused, or the import failed; 2 wrong usage, invalid
 *   configuration, or the storage could not be opened
 */
export async function runImport(command: ImportCommand): Promise<number> {
  const { stderr, signal } = command;
  const config = await loadCommandConfig(command);
  if (config === undefined) return 2;
  try {
    const source = await openBundleSource(command.bundle, command);
    const report = await importFrom(source, command, config);
    await writeOut(
      command.stdout,
      command.json
        ? `${JSON.stringify(report, undefined, 2)}\n`
        : reportText(report),
    );
    return 0;
  } catch (error) {
    const message = signal.aborted
      ? "the import was stopped; run it again to continue"
      : commandFailure(error, config);
    await writeOut(stderr, `entrepot: ${printable(message)}\n`);
    if (error instanceof Failed) return error.exitCode;
    return error instanceof RootInUseError || signal.aborted ? 1 : 2;
  }
}

async function importFrom(
  { body, sizeBytes, isExact }: OpenedBundle,
  command: ImportCommand,
  config: Config,
): Promise<ImportReport> {
  const progress = new ProgressLine(command.stderr);
  const bytes = (async function* () {
    yield* showBytes(body as AsyncIterable<Buffer>, progress, sizeBytes);
    progress.draw("verified; recording the images");
  })();
  try {
    const ask = await findRunningMirror(config);
    return ask === undefined
      ? await importStopped(bytes, sizeBytes, command, config)
      : await importRunning(
          bytes,
          isExact ? sizeBytes : undefined,
          command,
          config,
        );
  } finally {
    progress.end();
    body.destroy();
  }
}

async function importRunning(
  bytes: AsyncIterable<Uint8Array>,
  sizeBytes: number | undefined,
  { into, name, isPinned, signal }: ImportCommand,
  config: Config,
): Promise<ImportReport> {
  const query = new URLSearchParams({ pin: String(isPinned) });
  if (into !== undefined) query.set("into", into);
  if (name !== undefined) query.set("name", name);
  const { status, body } = await mirrorStreams(config)
    .upload(
      `/api/v1/import?${query.toString()}`,
      Readable.from(bytes, { objectMode: false }),
      "application/x-tar",
      signal,
      sizeBytes,
    )
    .catch((error: unknown) => {
      throw new Failed(
        1,
        `the import ended early: ${messageOf(error)}; run it again to continue`,
      );
    });
  if (status === 200) return body as ImportReport;
  const text = problemText(body);
  if (isWrongOption(body)) throw new Failed(2, optionText(text));
  throw new Failed(
    1,
    status < 500 || status === 507
      ? text
      : `the running mirror answered ${status}: ${text}`,
  );
}

/** Names an option as the command line has it, not the API. */
function optionText(text: string): string {
  return text.replace(/^(?=(?:into|name): )/, "--");
}

/** Whether a problem is that of an option, not of the bundle. */
function isWrongOption(body: unknown): boolean {
  return (
    typeof body === "object" &&
    body !== null &&
    "type" in body &&
    String(body.type).endsWith(":name-invalid")
  );
}

async function importStopped(
  bytes: AsyncIterable<Uint8Array>,
  sizeBytes: number | undefined,
  { into, name, isPinned, signal, stderr }: ImportCommand,
  config: Config,
): Promise<ImportReport> {
  const opened = await openStoppedServices(config, stderr, {
    isCreated: true,
  });
  const { services, audit, close } = opened;
  try {
    await audit.open();
    return await services.importBundle(
      { bytes, sizeBytes },
      { into, name, isPinned },
      { signal, report: () => undefined, sender: SENDER },
    );
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    const exitCode = error.code === "NAME_INVALID" ? 2 : 1;
    throw new Failed(exitCode, optionText(error.detail ?? error.message));
  } finally {
    await close();
  }
}

function reportText({ images, blobs, bytes }: ImportReport): string {
  const lines = images.slice(0, MAX_LISTED).map(({ ref, absentManifests }) => {
    const absent =
      absentManifests === 0
        ? ""
        : ` (without ${countText(absentManifests, "manifest", "manifests")} of its index)`;
    return `${ref}${absent}\n`;
  });
  const more = images.length - MAX_LISTED;
  if (more > 0) lines.push(`and ${more} more\n`);
  const added =
    blobs === 0
      ? "every blob was stored before"
      : `${countText(blobs, "blob", "blobs")} added, ${sizeText(bytes)}`;
  return `${lines.join("")}imported ${countText(images.length, "image", "images")}: ${added}\n`;
}
