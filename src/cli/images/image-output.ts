import type {
  EvictionReport,
  ImageDetail,
  ImageSummary,
} from "../../images/images.ts";

/** The number of platforms that a line of the list names. */
const MAX_NAMED_PLATFORMS = 3;

/** The result of a command, as JSON and as text. */
export interface Outcome {
  readonly json: unknown;
  readonly text: string;
  /** One line for each image that the command could not change; the exit code is then 1. */
  readonly failures?: readonly string[];
}

export function listing(images: readonly ImageSummary[]): Outcome {
  const rows = images.map((image) => [
    image.ref,
    sizeText(image.sizeBytes),
    minuteText(image.pulledAt),
    platformsText(image.platforms),
    [
      image.hosted ? "hosted" : "",
      image.pinned ? "pinned" : "",
      image.complete ? "" : "incomplete",
    ]
      .filter((word) => word !== "")
      .join(", "),
  ]);
  return {
    json: images,
    text: table([["IMAGE", "SIZE", "PULLED", "PLATFORMS", ""], ...rows]),
  };
}

export function inspection(image: ImageDetail): Outcome {
  const head = [
    ["ref", image.ref],
    ["digest", image.digest],
    ["media type", image.mediaType],
    ["size", sizeText(image.sizeBytes)],
    ["complete", image.complete ? "yes" : "no"],
    ["hosted", image.hosted ? "yes" : "no"],
    ["pinned", image.pinned ? "yes" : "no"],
    ["pulled", image.pulledAt],
  ];
  const platforms = image.platforms.map(({ platform, digest, complete }) => [
    platform,
    complete ? "complete" : "incomplete",
    digest,
  ]);
  const parts = image.graph.map((part) => [
    part.digest,
    part.sizeBytes === null ? "?" : sizeText(part.sizeBytes),
    part.stored ? "stored" : "absent",
    part.kind,
    part.mediaType ?? "",
  ]);
  const referrers = image.referrers.map((referrer) => [
    referrer.digest,
    sizeText(referrer.sizeBytes),
    "referrer",
    referrer.artifactType ?? referrer.mediaType,
  ]);
  const tables = [head, platforms, parts, referrers].filter(
    (rows) => rows.length > 0,
  );
  return { json: image, text: tables.map(table).join("\n") };
}

/** Names some of the complete platforms and counts all platforms. */
function platformsText(platforms: ImageSummary["platforms"]): string {
  const complete = platforms.filter((one) => one.complete);
  const names = complete
    .slice(0, MAX_NAMED_PLATFORMS)
    .map(({ platform }) => platform)
    .join(", ");
  return complete.length === platforms.length &&
    complete.length <= MAX_NAMED_PLATFORMS
    ? names
    : `${names} (${complete.length} of ${platforms.length})`.trimStart();
}

export function evictionOutcome(
  report: EvictionReport,
  dryRun: boolean,
): Outcome {
  const rows = report.images.map((image) => [
    image.ref,
    sizeText(image.sizeBytes),
    minuteText(image.pulledAt),
    image.reason,
  ]);
  const sum = `${countText(report.images.length, "image", "images")}, ${sizeText(report.freedBytes)} ${dryRun ? "would be freed" : "freed"}\n`;
  return {
    json: { dryRun, images: report.images, freedBytes: report.freedBytes },
    text: rows.length === 0 ? sum : `${table(rows)}${sum}`,
  };
}

/** Aligns the columns. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.entries()) {
      widths[at] = Math.max(widths[at] ?? 0, cell.length);
    }
  }
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

export function countText(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** Formats a size with two or three digits and a unit. */
export function sizeText(sizeBytes: number): string {
  let value = sizeBytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) {
      return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    }
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

/** Returns an ISO 8601 time to the minute, in UTC. */
function minuteText(time: string): string {
  return time.slice(0, 16).replace("T", " ");
}
