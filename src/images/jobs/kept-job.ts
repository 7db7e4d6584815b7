import { parseJsonObject } from "../../oci/json-object.ts";
import type { KeptRecord, KeptRecords } from "../../storage/kept-records.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { type Job, JOB_KINDS, JOB_STATES, type JobKind } from "./job.ts";
import type { JobEntry } from "./job-entry.ts";

/** A record may have 16 MiB. */
const RECORDS_PER_PAGE = 4;

/** The jobs that are kept in the index. */
export class JobRecords {
  readonly #records: KeptRecords;
  readonly #log: Pick<Logger, "warn">;
  #writing: Promise<void> = Promise.resolve();

  constructor(records: KeptRecords, log: Pick<Logger, "warn">) {
    this.#records = records;
    this.#log = log;
  }

  /** Reads all jobs, and drops records that are not jobs. @throws IndexError */
  async readAll(): Promise<readonly KeptJob[]> {
    const jobs: KeptJob[] = [];
    const unreadable: string[] = [];
    let last: string | undefined;
    for (;;) {
      const page = await this.#records.listRecords(
        "job",
        RECORDS_PER_PAGE,
        last,
      );
      for (const record of page) {
        const job = parseKeptJob(record);
        if (job === undefined) unreadable.push(record.id);
        else jobs.push(job);
      }
      last = page.at(-1)?.id;
      if (last === undefined) break;
    }
    if (unreadable.length > 0) {
      this.#log.warn(
        { jobs: unreadable },
        "dropped kept jobs that are unreadable",
      );
      await this.write([], unreadable);
    }
    return jobs;
  }

  /** Writes in the order of the calls, so that the end of a job replaces its request. @throws IndexError */
  write(
    put: readonly KeptRecord[],
    drop: readonly string[] = [],
  ): Promise<void> {
    this.#writing = this.#writing
      .catch(() => undefined)
      .then(() => this.#records.writeRecords("job", put, drop));
    return this.#writing;
  }

  /** Resolves when the last write has ended, with or without an error. */
  async settled(): Promise<void> {
    await this.#writing.catch(() => undefined);
  }
}

/**
 * A job as the index keeps it: `{"kind": "warm", "request": …}` until its end, `{"job": …}` after it.
 */
export type KeptJob =
  | {
      readonly id: string;
      readonly kind: JobKind;
      /** JSON. */
      readonly request: string;
    }
  | { readonly id: string; readonly ended: Job };

export function unfinishedRecord(
  { id, kind }: JobEntry,
  request: string,
): KeptRecord {
  return { id, text: `{"kind":${JSON.stringify(kind)},"request":${request}}` };
}

export function endedRecord(job: Job): KeptRecord {
  return { id: job.id, text: JSON.stringify({ job }) };
}

/** Returns undefined for a text that this version does not read. */
export function parseKeptJob({ id, text }: KeptRecord): KeptJob | undefined {
  const fields = parseJsonObject(text);
  if (fields === undefined) return undefined;
  if (fields.has("job")) {
    const ended = fields.get("job");
    return isEndedJob(ended) && ended.id === id ? { id, ended } : undefined;
  }
  const kind = JOB_KINDS.find((each) => each === fields.get("kind"));
  const request = fields.get("request");
  return kind === undefined || request === undefined
    ? undefined
    : { id, kind, request: JSON.stringify(request) };
}

function isEndedJob(value: unknown): value is Job {
  if (typeof value !== "object" || value === null) return false;
  const job = value as Readonly<Record<string, unknown>>;
  const isCount = (name: string): boolean =>
    Number.isSafeInteger(job[name]) && Number(job[name]) >= 0;
  const isTime = (name: string): boolean =>
    typeof job[name] === "string" && !Number.isNaN(Date.parse(job[name]));
  return (
    typeof job["id"] === "string" &&
    JOB_KINDS.some((kind) => kind === job["kind"]) &&
    JOB_STATES.some((state) => state === job["state"]) &&
    ["done", "total", "bytes", "bytesTotal", "errorCount"].every(isCount) &&
    (job["startedAt"] === null || isTime("startedAt")) &&
    isTime("endedAt") &&
    [job["errors"], job["notes"]].every(
      (texts) => Array.isArray(texts) && texts.every(isJobError),
    )
  );
}

function isJobError(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    "ref" in value &&
    typeof value.ref === "string" &&
    "message" in value &&
    typeof value.message === "string"
  );
}
