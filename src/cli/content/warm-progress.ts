import type { Job } from "../../images/jobs/job.ts";
import { durationText, sizeText } from "../output/amounts.ts";
import { type OutputStyle, paint, printable } from "../output/output-style.ts";
import { cutText } from "../output/table.ts";
import { waitText } from "./warm-output.ts";

/** The rate is that of the last ten seconds. */
const RATE_WINDOW_MS = 10_000;
const LINE_EVERY_MS = 5_000;
const MAX_BARS = 8;
const BAR_WIDTH = 20;
/** Narrower terminals show no bar. */
const MIN_BAR_WIDTH = 50;
const DEFAULT_WIDTH = 80;

/** Shows the progress of a job. */
export interface ProgressView {
  /** @returns the text to write now */
  show(job: Job, nowMs: number): string;
  /** Returns the text that removes what is shown. */
  clear(): string;
}

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

/** Measures the rate of a job, and from it the time that is left. */
class Rate {
  readonly #samples: Sample[] = [];

  add(job: Job, atMs: number): void {
    this.#samples.push({ atMs, bytes: job.bytes });
    while ((this.#samples[1]?.atMs ?? atMs) <= atMs - RATE_WINDOW_MS) {
      this.#samples.shift();
    }
  }

  get bytesPerSecond(): number {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined) return 0;
    const seconds = (last.atMs - first.atMs) / 1_000;
    return seconds === 0 ? 0 : Math.max(0, last.bytes - first.bytes) / seconds;
  }
}

/** As in `1.2 GiB of 3.4 GiB, 45 MiB/s, about 50s left`. */
function amountsText(job: Job, rate: Rate): string {
  const { bytesPerSecond } = rate;
  const parts = [`${sizeText(job.bytes)} of ${sizeText(job.bytesTotal)}`];
  // Between two attempts nothing runs.
  if (bytesPerSecond > 0 && job.running.length > 0) {
    parts.push(`${sizeText(bytesPerSecond)}/s`);
    const leftMs = ((wholeBytes(job) - job.bytes) / bytesPerSecond) * 1_000;
    if (leftMs > 0) parts.push(`about ${durationText(leftMs)} left`);
  }
  return parts.join(", ");
}

/** Estimates the bytes of all images by the mean of those examined so far. */
function wholeBytes({ bytesTotal, done, running, total }: Job): number {
  const examined = done + running.filter((one) => one.bytesTotal > 0).length;
  return examined === 0 || examined >= total
    ? bytesTotal
    : (bytesTotal / examined) * total;
}

function countsText(job: Job): string {
  const failed = job.errorCount === 0 ? "" : `, ${job.errorCount} failed`;
  return `${job.done} of ${job.total} images${failed}`;
}

/** Lines for a pipe or a log file: the state when it changes, then at most one line in five seconds. */
export class LineProgress implements ProgressView {
  readonly #rate = new Rate();
  #state: string | undefined;
  #last = "";
  #shownAtMs = -Infinity;

  show(job: Job, nowMs: number): string {
    this.#rate.add(job, nowMs);
    const lines: string[] = [];
    if (job.state !== this.#state) {
      this.#state = job.state;
      if (job.state === "queued" || job.state === "running") {
        lines.push(`job ${job.id}: ${job.state}`);
      }
    }
    const line =
      job.waitsUntil === null
        ? `${countsText(job)}, ${amountsText(job, this.#rate)}`
        : `${countsText(job)}, ${waitText(job.waitsUntil)}`;
    const isDue = nowMs - this.#shownAtMs >= LINE_EVERY_MS;
    const isKnown = job.state === "running" && job.total > 0;
    if (isKnown && isDue && line !== this.#last) {
      this.#last = line;
      this.#shownAtMs = nowMs;
      lines.push(line);
    }
    return lines.map((one) => `${one}\n`).join("");
  }

  clear(): string {
    return "";
  }
}

/** Bars on a terminal: one for each image in work, and one for the job; drawn over the previous ones. */
export class BarProgress implements ProgressView {
  readonly #style: OutputStyle;
  readonly #rate = new Rate();
  #drawnLines = 0;

  constructor(style: OutputStyle) {
    this.#style = style;
  }

  show(job: Job, nowMs: number): string {
    this.#rate.add(job, nowMs);
    const width = (this.#style.width ?? DEFAULT_WIDTH) - 1;
    const lines = job.running.slice(0, MAX_BARS).map((image) => {
      const { bytes, bytesTotal } = image;
      const amounts =
        bytesTotal === 0
          ? "…"
          : `${sizeText(bytes)} of ${sizeText(bytesTotal)}`;
      return this.#line(image.ref, bytes, bytesTotal, amounts, width);
    });
    const { length: count } = job.running;
    if (count > MAX_BARS) lines.push(`and ${count - MAX_BARS} more`);
    const amounts =
      job.waitsUntil === null
        ? amountsText(job, this.#rate)
        : waitText(job.waitsUntil);
    lines.push(
      job.state === "queued"
        ? cutText(`job ${job.id} waits for its turn`, width, "end")
        : this.#line(
            countsText(job),
            job.done,
            job.total,
            amounts,
            width,
            true,
          ),
    );
    const text = this.clear() + lines.map((line) => `${line}\n`).join("");
    this.#drawnLines = lines.length;
    return text;
  }

  clear(): string {
    const lines = this.#drawnLines;
    this.#drawnLines = 0;
    // Up to the first drawn line, and clear to the end of the screen.
    return lines === 0 ? "" : `\u001B[${lines}A\u001B[0J`;
  }

  #line(
    name: string,
    done: number,
    total: number,
    amounts: string,
    width: number,
    isNameWhole = false,
  ): string {
    const shownName = printable(name);
    if (width < MIN_BAR_WIDTH) {
      const amountsWidth = Math.min(amounts.length + 2, Math.floor(width / 2));
      const nameWidth = width - amountsWidth;
      const short = cutText(shownName, nameWidth, "middle").padEnd(nameWidth);
      return `${short}${cutText(`  ${amounts}`, amountsWidth, "end")}`;
    }
    const share = total === 0 ? 0 : Math.min(1, done / total);
    const filled = Math.round(share * BAR_WIDTH);
    const bar = `[${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}]`;
    const nameWidth = Math.max(
      isNameWhole ? shownName.length : 12,
      width - bar.length - amounts.length - 4,
    );
    const short = cutText(shownName, nameWidth, "middle").padEnd(nameWidth);
    const restWidth = width - nameWidth - bar.length - 2;
    const rest = cutText(`  ${amounts}`, restWidth, "end");
    return `${short}  ${paint(this.#style, "green", bar)}${rest}`;
  }
}
