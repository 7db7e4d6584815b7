import type { Job, JobError } from "../../images/jobs/job.ts";
import type { WarmPlan } from "../../images/warm/warm-plan.ts";
import {
  countText,
  durationText,
  minuteText,
  sizeText,
} from "../output/amounts.ts";
import { type OutputStyle, printable } from "../output/output-style.ts";
import { type Cell, tableText } from "../output/table.ts";

/** References that a group of failures names. */
const MAX_NAMED = 20;

/** Formats the result of a dry run. */
export function planText(plan: WarmPlan, style: OutputStyle): string {
  const images = plan.images.map(
    ({ ref, manifests, blobs, bytes, pulls, isPartial }): Cell[] => [
      ref,
      atLeast(manifests, isPartial),
      atLeast(blobs, isPartial),
      isPartial && bytes === 0
        ? "unknown"
        : `${isPartial ? "≥ " : ""}${sizeText(bytes)}`,
      atLeast(pulls, isPartial),
    ],
  );
  const table =
    images.length === 0
      ? ""
      : tableText(
          [
            { heading: "IMAGE", cut: "middle" },
            { heading: "MANIFESTS", align: "right" },
            { heading: "BLOBS", align: "right" },
            { heading: "SIZE", align: "right" },
            { heading: "PULLS", align: "right" },
          ],
          images,
          style,
        );
  const sums = plan.upstreams.map((one) => {
    const part = one.isPartial ? "at least " : "";
    const present = `${one.present} of ${countText(one.images, "image", "images")} present`;
    const missing = `${part}${countText(one.manifests, "manifest", "manifests")} and ${countText(one.blobs, "blob", "blobs")} to fetch, ${sizeText(one.bytes)}`;
    const pulls =
      one.pullsLeft === null
        ? "no pull budget is stated"
        : `${part}${one.pulls} of ${one.pullsLeft} requests of the pull budget`;
    return `${printable(one.name)}: ${present}; ${missing}; ${pulls}\n`;
  });
  const note = plan.upstreams.some(({ isPartial }) => isPartial)
    ? "Manifests that are not stored were not read, because that costs pulls: each platform of these images costs one more.\n"
    : "";
  return `${table}${sums.join("")}${note}`;
}

function atLeast(count: number, isPartial: boolean): string {
  return `${isPartial ? "≥ " : ""}${count}`;
}

/** Formats the end of a job. */
export function endText(job: Job, elapsedMs: number): string {
  const images = countText(job.total, "image", "images");
  const took = durationText(elapsedMs);
  if (job.state === "done") {
    return `${images} present, ${sizeText(job.bytes)}, in ${took}\n`;
  }
  return job.state === "cancelled"
    ? `cancelled after ${job.done} of ${images}\n`
    : `${countText(job.errorCount, "failure", "failures")}; ${job.done} of ${images} examined, ${sizeText(job.bytes)} present, in ${took}\n`;
}

/** Sums failures up: those with the same reason together. */
export function failuresText(
  errors: readonly JobError[],
  errorCount: number,
): string {
  const groups = new Map<string, string[]>();
  for (const { ref, message } of errors) {
    const refs = groups.get(message) ?? [];
    refs.push(ref);
    groups.set(message, refs);
  }
  const lines: string[] = [];
  for (const [message, refs] of groups) {
    const [first = ""] = refs;
    if (refs.length === 1) {
      lines.push(first === "" ? message : `${first}: ${message}`);
      continue;
    }
    lines.push(`${refs.length} images: ${message}`);
    for (const ref of refs.slice(0, MAX_NAMED)) lines.push(`  ${ref}`);
    if (refs.length > MAX_NAMED) {
      lines.push(`  and ${refs.length - MAX_NAMED} more`);
    }
  }
  if (errorCount > errors.length) {
    lines.push(`and ${errorCount - errors.length} more failures`);
  }
  return lines.map((line) => `entrepot: ${printable(line)}\n`).join("");
}

/** Formats what lists say and the mirror does not apply. */
export function notesText(notes: readonly JobError[]): string {
  return notes
    .map(({ ref, message }) => printable(`${ref}: ${message}`))
    .map((note) => `entrepot: note: ${note}\n`)
    .join("");
}

/** Says that a job waits for the pull budget. */
export function waitText(untilMs: string): string {
  return `waits for the pull budget until ${minuteText(untilMs)}`;
}
