import type { Job, JobState } from "../../images/jobs/job.ts";
import { Failed } from "../images/image-backend.ts";
import {
  countText,
  durationText,
  minuteText,
  sizeText,
} from "../output/amounts.ts";
import type { OutputStyle, Paint } from "../output/output-style.ts";
import { type Cell, fieldsText, tableText } from "../output/table.ts";
import {
  type AskMirror,
  findRunningMirror,
  JOBS_PATH,
  unreachableText,
} from "../running-mirror.ts";
import {
  readPages,
  refusal,
  type Report,
  type ReportOptions,
  runReport,
} from "./run-report.ts";

export interface JobsOptions extends ReportOptions {
  /** Undefined: all jobs are listed. */
  readonly id: string | undefined;
  readonly isCancelled: boolean;
}

const COLOURS: Readonly<Record<JobState, Paint | undefined>> = {
  queued: undefined,
  running: "green",
  done: undefined,
  failed: "red",
  cancelled: "yellow",
};

/**
 * Lists, shows or cancels jobs of the running mirror.
 *
 * @returns the exit code: 0 done; 1 no such job, no mirror runs, or it failed; 2 wrong usage or
 *   invalid configuration
 */
export function runJobs(options: JobsOptions): Promise<number> {
  const { id, isCancelled } = options;
  return runReport(options, async (config) => {
    if (id === undefined && isCancelled) {
      throw new Failed(2, "--cancel: got no job; expected the id of one");
    }
    const ask = await findRunningMirror(config);
    if (ask === undefined) {
      throw new Failed(
        1,
        `jobs run in a mirror, and ${unreachableText(config.operator)}; start it with 'entrepot serve'`,
      );
    }
    if (id === undefined) {
      return listing(await readPages<Job>(ask, JOBS_PATH));
    }
    return isCancelled ? cancellation(ask, id) : detail(ask, id);
  });
}

function listing(jobs: readonly Job[]): Report {
  const columns = [
    { heading: "JOB" },
    { heading: "KIND" },
    { heading: "STATE" },
    { heading: "IMAGES", align: "right" },
    { heading: "SIZE", align: "right" },
    { heading: "FAILURES", align: "right" },
    { heading: "STARTED" },
    { heading: "TOOK" },
  ] as const;
  const rows = jobs.map((job): readonly Cell[] => [
    job.id,
    job.kind,
    stateCell(job),
    imagesText(job),
    sizeText(job.bytes),
    job.errorCount === 0 ? "" : { text: `${job.errorCount}`, colour: "red" },
    job.startedAt === null ? "" : minuteText(job.startedAt),
    tookText(job),
  ]);
  return {
    json: jobs,
    text: (style) =>
      rows.length === 0
        ? "no job was started yet\n"
        : tableText(columns, rows, style),
  };
}

async function detail(ask: AskMirror, id: string): Promise<Report> {
  const { status, body } = await ask("GET", pathOf(id));
  const job = jobOf(id, status, body);
  return { json: job, text: (style) => detailText(job, style) };
}

async function cancellation(ask: AskMirror, id: string): Promise<Report> {
  const before = await ask("GET", pathOf(id));
  const { endedAt } = jobOf(id, before.status, before.body);
  const { status, body } = await ask("DELETE", pathOf(id));
  const job = jobOf(id, status, body);
  return {
    json: job,
    text: () =>
      endedAt === null
        ? `cancelled job ${id} after ${imagesText(job)} images\n`
        : `job ${id} had ended before: ${job.state}\n`,
  };
}

/** @throws Failed */
function jobOf(id: string, status: number, body: unknown): Job {
  if (status === 200) return body as Job;
  if (status === 404) {
    throw new Failed(1, `no job ${id}; 'entrepot jobs' lists all`);
  }
  throw refusal(status, body);
}

function pathOf(id: string): string {
  return `${JOBS_PATH}/${encodeURIComponent(id)}`;
}

function detailText(job: Job, style: OutputStyle): string {
  const fields: (readonly [string, Cell])[] = [
    ["job", job.id],
    ["kind", job.kind],
    ["state", stateCell(job)],
    ["images", imagesText(job)],
    ["size", `${sizeText(job.bytes)} of ${sizeText(job.bytesTotal)}`],
    ["failures", `${job.errorCount}`],
  ];
  if (job.startedAt !== null) {
    fields.push(["started", minuteText(job.startedAt)]);
  }
  if (job.endedAt !== null) fields.push(["ended", minuteText(job.endedAt)]);
  const took = tookText(job);
  if (took !== "") fields.push(["took", took]);
  const running =
    job.running.length === 0
      ? ""
      : tableText(
          [
            { heading: "IN WORK", cut: "middle" },
            { heading: "SIZE", align: "right" },
            { heading: "OF", align: "right" },
          ],
          job.running.map(({ ref, bytes, bytesTotal }) => [
            ref,
            sizeText(bytes),
            sizeText(bytesTotal),
          ]),
          style,
        );
  const left = job.errorCount - job.errors.length;
  const failures =
    job.errors.length === 0
      ? ""
      : tableText(
          [{ heading: "FAILED", cut: "middle" }, { heading: "REASON" }],
          job.errors.map(({ ref, message }) => [
            ref === "" ? "the job" : ref,
            message,
          ]),
          style,
        ) +
        (left > 0
          ? `and ${countText(left, "failure", "failures")} more\n`
          : "");
  const notes =
    job.notes.length === 0
      ? ""
      : tableText(
          [{ heading: "LIST", cut: "middle" }, { heading: "NOTE" }],
          job.notes.map(({ ref, message }) => [ref, message]),
          style,
        );
  return [fieldsText(fields, style), running, failures, notes]
    .filter((text) => text !== "")
    .join("\n");
}

function stateCell({ state, waitsUntil }: Job): Cell {
  return waitsUntil === null
    ? { text: state, colour: COLOURS[state] }
    : { text: `waits until ${minuteText(waitsUntil)}`, colour: "yellow" };
}

function imagesText({ done, total }: Job): string {
  return `${done}/${total}`;
}

/** @returns an empty text for a job that has not started */
function tookText({ startedAt, endedAt }: Job): string {
  if (startedAt === null) return "";
  const endMs = endedAt === null ? Date.now() : Date.parse(endedAt);
  return durationText(endMs - Date.parse(startedAt));
}
