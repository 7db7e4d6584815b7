import type { Readable } from "node:stream";
import { finished } from "node:stream/promises";
import { RegistryError } from "../../../oci/errors.ts";
import type { Audit } from "../../../telemetry/audit.ts";
import { type Schedule, scheduleUnref } from "../../../telemetry/clock.ts";
import type { JobRun, Jobs } from "../../jobs/job.ts";
import type { ExportRequest } from "../bundle.ts";
import type { OpenBundle, OpenBundleOptions } from "./export-bundle.ts";

/** Exports at the same time: each has some 10 MB in memory, and one reads faster than a disk. */
const MAX_EXPORTS = 8;
/** How long a client may read nothing: meanwhile nothing in its bundle can be evicted. */
const IDLE_TIMEOUT_MS = 10 * 60_000;
/** Names in one record of the audit log. */
const MAX_AUDITED = 100;

/** Opens a bundle, see `openBundle`. */
export type OpenExport = (
  request: ExportRequest,
  options: OpenBundleOptions,
) => Promise<OpenBundle>;

/** A bundle on its way to a client, tracked as a job. */
export interface TrackedBundle extends OpenBundle {
  readonly job: string;
}

interface TrackedExportsParts {
  readonly open: OpenExport;
  readonly jobs: Pick<Jobs, "track">;
  readonly audit: Pick<Audit, "record">;
  readonly schedule?: Schedule;
}

/** Exports of a running mirror: each is a job that ends when its archive is read or its client leaves. */
export class TrackedExports {
  readonly #parts: TrackedExportsParts;
  #running = 0;

  constructor(parts: TrackedExportsParts) {
    this.#parts = parts;
  }

  /**
   * @param client the source of the order, for the audit log
   * @param signal ends the export when its client leaves
   * @throws RegistryError
   */
  async start(
    request: ExportRequest,
    client: string,
    signal: AbortSignal,
  ): Promise<TrackedBundle> {
    if (this.#running >= MAX_EXPORTS) {
      throw new RegistryError("TOOMANYREQUESTS", {
        detail: `got another export; expected at most ${MAX_EXPORTS} at a time: try again later`,
      });
    }
    this.#running += 1;
    const opened = Promise.withResolvers<TrackedBundle>();
    void this.#parts.jobs
      .track("export", signal, (run) =>
        this.#run(request, client, run, opened.resolve),
      )
      .catch(opened.reject)
      .finally(() => {
        this.#running -= 1;
      });
    return opened.promise;
  }

  async #run(
    request: ExportRequest,
    client: string,
    run: JobRun,
    onOpened: (bundle: TrackedBundle) => void,
  ): Promise<void> {
    let bytes = 0;
    let idle: IdleWatch | undefined;
    const bundle = await this.#parts.open(request, {
      signal: run.signal,
      onBytes: (read) => {
        bytes += read;
        run.report({ bytes });
        idle?.note();
      },
    });
    const { archive, report } = bundle;
    const total = report.images.length;
    run.report({ total, bytesTotal: report.bytes });
    this.#parts.audit.record({
      event: "exported",
      client,
      images: total,
      references: report.images.slice(0, MAX_AUDITED).map(({ ref }) => ref),
      blobs: report.blobs,
      bytes: report.bytes,
    });
    idle = new IdleWatch(this.#parts.schedule ?? scheduleUnref, archive);
    const reading = untilRead(archive, run.signal);
    onOpened({ ...bundle, job: run.id });
    try {
      await reading;
    } finally {
      idle.end();
    }
    run.report({ done: total });
  }
}

/** Destroys an archive of which nothing is read for too long. */
class IdleWatch {
  readonly #schedule: Schedule;
  readonly #archive: Readable;
  #cancel: (() => void) | undefined;

  constructor(schedule: Schedule, archive: Readable) {
    this.#schedule = schedule;
    this.#archive = archive;
    this.note();
  }

  /** Starts the time again: something was read. */
  note(): void {
    this.#cancel?.();
    this.#cancel = this.#schedule(() => {
      const seconds = IDLE_TIMEOUT_MS / 1_000;
      this.#archive.destroy(
        new Error(`the client read nothing for ${seconds} s`),
      );
    }, IDLE_TIMEOUT_MS);
  }

  end(): void {
    this.#cancel?.();
  }
}

/** @throws RegistryError if the archive was not read to its end */
async function untilRead(
  archive: Readable,
  signal: AbortSignal,
): Promise<void> {
  const abort = (): void => void archive.destroy(signal.reason as Error);
  signal.addEventListener("abort", abort, { once: true });
  try {
    if (signal.aborted) abort();
    await finished(archive, { writable: false });
  } catch (error) {
    throw new RegistryError("UNAVAILABLE", {
      detail: archive.errored?.message ?? "the client left early",
      cause: error,
    });
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
