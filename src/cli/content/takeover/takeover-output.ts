import type {
  TakeoverCounts,
  TakeoverProblem,
  TakeoverProgress,
} from "../../../images/takeover/takeover.ts";
import { countText, sizeText } from "../../output/amounts.ts";
import { printable } from "../../output/output-style.ts";

/** Formats a problem as one line without its end. */
export function problemText({ kind, name, message }: TakeoverProblem): string {
  return printable(`entrepot: ${kind}: ${name}: ${message}`);
}

/** Formats how far a take-over is. */
export function progressText(
  { done, total, bytes }: TakeoverProgress,
  seconds: number,
): string {
  const share = total === 0 ? 1 : Math.min(1, done / total);
  return `${Math.floor(share * 100)} %  ${done} of ${total} links  ${sizeText(bytes)}  ${sizeText(bytes / seconds)}/s`;
}

/** Formats the result. */
export function takeoverText(report: {
  readonly source: string;
  readonly target: string;
  readonly isDryRun: boolean;
  readonly counts: TakeoverCounts;
}): string {
  const { source, target, isDryRun, counts } = report;
  const linkedBlobs = counts.blobs - counts.copiedBlobs;
  const linkedBytes = counts.bytes - counts.copiedBytes;
  const would = isDryRun ? "would be " : "";
  const lines = [
    `${printable(source)} ${isDryRun ? "would be" : "was"} taken over as ${target}: ${countText(counts.repositories, "repository", "repositories")}, ${countText(counts.tags, "tag", "tags")}, ${countText(counts.manifests, "manifest", "manifests")}`,
    ...line(linkedBlobs, `${would}linked without a copy`, linkedBytes),
    ...line(counts.copiedBlobs, `${would}copied`, counts.copiedBytes),
    ...line(counts.presentBlobs, "stored before or shared", undefined),
  ];
  if (counts.incomplete > 0) {
    lines.push(
      `  ${countText(counts.incomplete, "manifest names", "manifests name")} parts that the folder does not have; a pull through the running mirror fetches them`,
    );
  }
  if (counts.unnamedBlobs > 0) {
    lines.push(
      `  ${countText(counts.unnamedBlobs, "blob that no manifest names was", "blobs that no manifest names were")} left out`,
    );
  }
  if (counts.problemCount > 0) {
    lines.push(
      `  ${countText(counts.problemCount, "problem was", "problems were")} reported above; the rest was not affected`,
    );
  }
  return `${lines.join("\n")}\n`;
}

function line(
  count: number,
  what: string,
  bytes: number | undefined,
): readonly string[] {
  if (count === 0) return [];
  const size = bytes === undefined ? "" : `, ${sizeText(bytes)}`;
  return [`  ${countText(count, "blob", "blobs")} ${what}${size}`];
}
