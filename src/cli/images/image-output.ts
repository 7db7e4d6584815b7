import type {
  EvictionReport,
  ImageDetail,
  ImageSummary,
} from "../../images/images.ts";
import { countText, minuteText, sizeText } from "../output/amounts.ts";
import type { OutputStyle } from "../output/output-style.ts";
import {
  type Cell,
  type Column,
  fieldsText,
  tableText,
} from "../output/table.ts";

/** The number of platforms that a line of the list names. */
const MAX_NAMED_PLATFORMS = 3;

/** The result of a command, as JSON and as text. */
export interface Outcome {
  readonly json: unknown;
  readonly text: (style: OutputStyle) => string;
  /** One line for each image that the command could not change; the exit code is then 1. */
  readonly failures?: readonly string[];
}

const IMAGE: Column = { heading: "IMAGE", cut: "middle" };
const SIZE: Column = { heading: "SIZE", align: "right" };
const DIGEST: Column = { heading: "DIGEST", cut: "end" };

/** @param noMatch the failure if no image matches; undefined if every image is listed */
export function listing(
  images: readonly ImageSummary[],
  noMatch?: string,
): Outcome {
  if (images.length === 0) {
    return noMatch === undefined
      ? { json: images, text: () => "no image is stored yet\n" }
      : { json: images, text: () => "", failures: [noMatch] };
  }
  const columns: readonly Column[] = [
    IMAGE,
    SIZE,
    { heading: "PULLED" },
    { heading: "PLATFORMS", cut: "end" },
    { heading: "STATE" },
  ];
  const rows = images.map((image) => [
    image.ref,
    sizeText(image.sizeBytes),
    minuteText(image.pulledAt),
    platformsText(image.platforms),
    stateCell(image),
  ]);
  return { json: images, text: (style) => tableText(columns, rows, style) };
}

/** @returns why the image is special; empty for most */
function stateCell(image: ImageSummary): Cell {
  const words = [
    image.hosted ? "hosted" : "",
    image.pinned ? "pinned" : "",
    image.complete ? "" : "incomplete",
  ];
  return {
    text: words.filter((word) => word !== "").join(", "),
    colour: image.complete ? undefined : "yellow",
  };
}

export function inspection(image: ImageDetail): Outcome {
  return {
    json: image,
    text: (style) =>
      [
        headText(image, style),
        platformTable(image, style),
        partTable(image, style),
        referrerTable(image, style),
      ]
        .filter((text) => text !== "")
        .join("\n"),
  };
}

function yesOrNo(is: boolean): string {
  return is ? "yes" : "no";
}

function headText(image: ImageDetail, style: OutputStyle): string {
  return fieldsText(
    [
      ["image", image.ref],
      ["digest", image.digest],
      ["media type", image.mediaType],
      ["size", sizeText(image.sizeBytes)],
      [
        "complete",
        {
          text: yesOrNo(image.complete),
          colour: image.complete ? undefined : "yellow",
        },
      ],
      ["hosted", yesOrNo(image.hosted)],
      ["pinned", yesOrNo(image.pinned)],
      ["pulled", minuteText(image.pulledAt)],
    ],
    style,
  );
}

function platformTable({ platforms }: ImageDetail, style: OutputStyle): string {
  if (platforms.length === 0) return "";
  return tableText(
    [{ heading: "PLATFORM", cut: "end" }, { heading: "STATE" }, DIGEST],
    platforms.map(({ platform, digest, complete }) => [
      platform,
      complete ? "complete" : { text: "incomplete", colour: "yellow" },
      digest,
    ]),
    style,
  );
}

function partTable({ graph }: ImageDetail, style: OutputStyle): string {
  return tableText(
    [
      { heading: "PART" },
      SIZE,
      { heading: "STATE" },
      { heading: "MEDIA TYPE", cut: "end" },
      DIGEST,
    ],
    graph.map((part) => [
      part.kind,
      part.sizeBytes === null ? "?" : sizeText(part.sizeBytes),
      part.stored ? "stored" : { text: "absent", colour: "yellow" },
      part.mediaType ?? "",
      part.digest,
    ]),
    style,
  );
}

function referrerTable({ referrers }: ImageDetail, style: OutputStyle): string {
  if (referrers.length === 0) return "";
  return tableText(
    [{ heading: "REFERRER", cut: "end" }, SIZE, DIGEST],
    referrers.map((referrer) => [
      referrer.artifactType ?? referrer.mediaType,
      sizeText(referrer.sizeBytes),
      referrer.digest,
    ]),
    style,
  );
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
  const columns: readonly Column[] = [
    IMAGE,
    { heading: "FREED", align: "right" },
    { heading: "PULLED" },
    { heading: "REASON" },
  ];
  const rows = report.images.map((image) => [
    image.ref,
    sizeText(image.sizeBytes),
    minuteText(image.pulledAt),
    image.reason,
  ]);
  const sum = `${countText(report.images.length, "image", "images")}, ${sizeText(report.freedBytes)} ${dryRun ? "would be freed" : "freed"}\n`;
  return {
    json: { dryRun, images: report.images, freedBytes: report.freedBytes },
    text: (style) =>
      rows.length === 0 ? sum : `${tableText(columns, rows, style)}${sum}`,
  };
}
