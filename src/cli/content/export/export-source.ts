import type { Readable, Writable } from "node:stream";
import type { Config } from "../../../config/config.ts";
import {
  EXPORT_HEADER,
  type ExportBody,
  type ExportSummary,
} from "../../../http/operator/api-export.ts";
import type {
  BundleBase,
  ExportRequest,
} from "../../../images/bundles/bundle.ts";
import { RegistryError } from "../../../oci/errors.ts";
import { Failed } from "../../images/image-backend.ts";
import { openStoppedServices } from "../../images/stopped-images.ts";
import { mirrorStreams } from "../../mirror-streams.ts";
import {
  type AskMirror,
  findRunningMirror,
  problemText,
} from "../../running-mirror.ts";

/** A bundle that is written while its archive is read. */
export interface ExportSource {
  readonly summary: Omit<ExportSummary, "job">;
  readonly archive: Readable;
  /** Returns why the archive ended early. */
  explain(error: Error): Promise<string>;
  close(): Promise<void>;
}

/**
 * Opens a bundle of the mirror that runs with the configuration, otherwise of its storage root.
 *
 * @throws Failed if it is refused; RootInUseError, StorageError, IndexError
 */
export async function openExportSource(
  config: Config,
  request: ExportRequest,
  {
    stderr,
    signal,
  }: { readonly stderr: Writable; readonly signal: AbortSignal },
): Promise<ExportSource> {
  const ask = await findRunningMirror(config);
  return ask === undefined
    ? openStopped(config, request, stderr, signal)
    : openRunning(config, ask, request, signal);
}

async function openRunning(
  config: Config,
  ask: AskMirror,
  request: ExportRequest,
  signal: AbortSignal,
): Promise<ExportSource> {
  const { since, ...others } = request;
  const body: ExportBody = {
    ...others,
    ...(since === undefined ? {} : { since: withoutAbsent(since) }),
  };
  const got = await mirrorStreams(config).download(
    "POST",
    "/api/v1/export",
    body,
    signal,
  );
  if ("status" in got) throw refusal(got.status, problemText(got.body));
  const summary = JSON.parse(
    String(got.headers[EXPORT_HEADER] ?? "null"),
  ) as ExportSummary | null;
  if (summary === null) {
    got.body.destroy();
    throw new Failed(1, "the running mirror has another version");
  }
  return {
    summary,
    archive: got.body,
    explain: async () =>
      (await jobError(ask, summary.job)) ??
      "the running mirror ended the bundle early; see its log",
    close: () => Promise.resolve(),
  };
}

/** Returns the base as JSON has it. */
function withoutAbsent(base: BundleBase): NonNullable<ExportBody["since"]> {
  return JSON.parse(JSON.stringify(base)) as NonNullable<ExportBody["since"]>;
}

function refusal(status: number, detail: string): Failed {
  return new Failed(status === 400 ? 2 : 1, detail);
}

/** Returns the failure of a job that has failed. */
async function jobError(
  ask: AskMirror,
  job: string,
): Promise<string | undefined> {
  const answer = await ask("GET", `/api/v1/jobs/${job}`).catch(() => undefined);
  if (answer?.status !== 200) return undefined;
  const { errors } = answer.body as {
    readonly errors?: readonly { readonly message?: string }[];
  };
  return errors?.[0]?.message;
}

async function openStopped(
  config: Config,
  request: ExportRequest,
  stderr: Writable,
  signal: AbortSignal,
): Promise<ExportSource> {
  const { services, audit, close } = await openStoppedServices(config, stderr);
  try {
    await audit.open();
    const { archive, report } = await services.openExport(request, { signal });
    const { images, ...sizes } = report;
    audit.record({
      event: "exported",
      client: "command-line",
      images: images.length,
      references: images.slice(0, 100).map(({ ref }) => ref),
      blobs: report.blobs,
      bytes: report.bytes,
    });
    return {
      summary: { ...sizes, images: images.length },
      archive,
      explain: ({ message }) => Promise.resolve(message),
      close: async () => {
        archive.destroy();
        await close();
      },
    };
  } catch (error) {
    await close();
    if (!(error instanceof RegistryError)) throw error;
    throw refusal(error.status, error.detail ?? error.message);
  }
}
