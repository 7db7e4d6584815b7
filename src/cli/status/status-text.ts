import type { Job } from "../../images/jobs/job.ts";
import {
  countText,
  durationText,
  minuteText,
  percentText,
  sizeText,
} from "../output/amounts.ts";
import { type OutputStyle, paint } from "../output/output-style.ts";
import { type Cell, fieldsText, tableText } from "../output/table.ts";
import type {
  CredentialReport,
  MirrorReport,
  UpstreamReport,
} from "./mirror-report.ts";

const NONE = "-";

/** Formats a report for people: fields, then a table for each list that is not empty. */
export function statusText(
  report: MirrorReport,
  style: OutputStyle,
  nowMs: number,
): string {
  return [
    `${headLine(report, style, nowMs)}${fieldsText(fieldsOf(report), style)}`,
    upstreamTable(report, style, nowMs),
    hostedTable(report, style),
    fillTable(report, style),
    jobTable(report, style, nowMs),
  ]
    .filter((text) => text !== "")
    .join("\n");
}

/** Formats a report as one line, for a log. */
export function statusLine(report: MirrorReport, nowMs: number): string {
  const { cache, storage, running, upstreams } = report;
  const down = upstreams.filter(({ state }) => state !== "up");
  const parts = [
    `hits ${ratioText(cache.hitRatio)}`,
    `saved ${sizeText(cache.savedBytes)}`,
    `stored ${sizeText(storage.bytes)}`,
    `downloads ${running.fillCount}`,
    `jobs ${running.jobs.length}`,
    down.length === 0
      ? "upstreams up"
      : down.map(({ name, state }) => `${name} ${state}`).join(", "),
    ...(report.health.ready ? [] : ["not ready"]),
  ];
  return `${new Date(nowMs).toISOString()}  ${parts.join("; ")}\n`;
}

function headLine(
  { version, startedAt, offline, health }: MirrorReport,
  style: OutputStyle,
  nowMs: number,
): string {
  const flaws = Object.entries(health.detail).filter(
    ([, state]) => state !== "ok",
  );
  const detail = flaws.map(([part, state]) => `${part} ${state}`).join(", ");
  const state = health.ready
    ? paint(style, "green", "ready")
    : paint(style, "red", "not ready");
  const parts = [
    `entrepot ${version}`,
    `up ${durationText(nowMs - Date.parse(startedAt))}`,
    detail === "" ? state : `${state} (${detail})`,
    ...(offline ? [paint(style, "yellow", "offline")] : []),
  ];
  return `${parts.join(", ")}\n\n`;
}

function fieldsOf({
  cache,
  storage,
}: MirrorReport): readonly (readonly [string, Cell])[] {
  const { limitBytes, freeBytes, evictedImages } = storage;
  const limit =
    limitBytes === null
      ? "no limit"
      : `limit ${sizeText(limitBytes)} (${percentText(limitBytes === 0 ? 1 : storage.bytes / limitBytes)} used)`;
  const free =
    freeBytes === null ? "" : `, ${sizeText(freeBytes)} free on disk`;
  const age = storage.oldestEvictedAgeSeconds;
  return [
    [
      "hits",
      cache.hitRatio === null
        ? "no request since the start"
        : `${percentText(cache.hitRatio)} of ${countText(cache.requests, "request", "requests")} since the start`,
    ],
    [
      "saved",
      `${sizeText(cache.savedBytes)} (${sizeText(cache.servedBytes)} served, ${sizeText(cache.receivedBytes)} received from upstreams)`,
    ],
    ["space", `${sizeText(storage.bytes)}, ${limit}${free}`],
    [
      "content",
      `${countText(storage.tags, "tag", "tags")}, ${countText(storage.manifests, "manifest", "manifests")}, ${countText(storage.blobs, "blob", "blobs")} in ${storage.root}`,
    ],
    [
      "evicted",
      age === null
        ? countText(evictedImages, "image", "images")
        : `${countText(evictedImages, "image", "images")}; the latest was not pulled for ${durationText(age * 1_000)}`,
    ],
  ];
}

function ratioText(ratio: number | null): string {
  return ratio === null ? NONE : percentText(ratio);
}

const STATE_COLOURS = {
  up: "green",
  down: "red",
  unauthorized: "red",
  offline: "yellow",
} as const;

function upstreamTable(
  { upstreams }: MirrorReport,
  style: OutputStyle,
  nowMs: number,
): string {
  if (upstreams.length === 0) return "";
  return tableText(
    [
      { heading: "UPSTREAM" },
      { heading: "STATE" },
      { heading: "BREAKER" },
      { heading: "PULL BUDGET" },
      { heading: "LAST ERROR", cut: "end" },
    ],
    upstreams.map((upstream) => [
      upstream.name,
      { text: upstream.state, colour: STATE_COLOURS[upstream.state] },
      breakerText(upstream),
      budgetText(upstream.credentials, nowMs),
      errorText(upstream.lastError, nowMs),
    ]),
    style,
  );
}

/** Names the breakers that are not closed, with their endpoints if there are several. */
function breakerText({ endpoints }: UpstreamReport): string {
  const open = endpoints.filter(({ breaker }) => breaker !== "closed");
  if (open.length === 0) return "closed";
  return open
    .map(({ url, breaker, retryAfterSeconds }) => {
      const place = endpoints.length === 1 ? "" : ` (${hostOf(url)})`;
      const retry =
        breaker === "open" && retryAfterSeconds > 0
          ? `, retry in ${durationText(retryAfterSeconds * 1_000)}`
          : "";
      return `${breaker}${place}${retry}`;
    })
    .join("; ");
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : url;
}

/** Names the credentials if there are several. */
function budgetText(
  credentials: readonly CredentialReport[],
  nowMs: number,
): string {
  const texts = credentials.flatMap((credential) => {
    const text = credentialText(credential, nowMs);
    if (text === "") return [];
    return credentials.length === 1 && !credential.isRefused
      ? [text]
      : [`${credential.name}: ${text}`];
  });
  return texts.length === 0 ? NONE : texts.join("; ");
}

function credentialText(credential: CredentialReport, nowMs: number): string {
  const { limit, remaining, resetsAt, restsForSeconds, isRefused } = credential;
  const amount =
    remaining === null
      ? ""
      : `${remaining}${limit === null ? " left" : ` of ${limit}`}`;
  // The budget of a window that is over is full again.
  const resetMs = resetsAt === null ? 0 : Date.parse(resetsAt) - nowMs;
  const parts = [
    isRefused ? "refused" : "",
    amount,
    resetMs > 0 && amount !== "" ? `resets in ${durationText(resetMs)}` : "",
    restsForSeconds > 0
      ? `rests for ${durationText(restsForSeconds * 1_000)}`
      : "",
  ];
  return parts.filter((part) => part !== "").join(", ");
}

function errorText(error: UpstreamReport["lastError"], nowMs: number): string {
  if (error === null) return NONE;
  return `${durationText(nowMs - Date.parse(error.at))} ago: ${error.message}`;
}

function hostedTable({ hosted }: MirrorReport, style: OutputStyle): string {
  const used = hosted.filter(
    ({ repositories, uploads }) => repositories > 0 || uploads > 0,
  );
  if (used.length === 0) return "";
  return tableText(
    [
      { heading: "HOSTED" },
      { heading: "REPOSITORIES", align: "right" },
      { heading: "TAGS", align: "right" },
      { heading: "SIZE", align: "right" },
      { heading: "QUOTA", align: "right" },
      { heading: "UPLOADS", align: "right" },
    ],
    used.map((registry) => [
      registry.name,
      String(registry.repositories),
      String(registry.tags),
      sizeText(registry.bytes),
      registry.quotaBytes === null ? NONE : sizeText(registry.quotaBytes),
      String(registry.uploads),
    ]),
    style,
  );
}

function fillTable({ running }: MirrorReport, style: OutputStyle): string {
  const { fills, fillCount } = running;
  if (fillCount === 0) return "";
  const rows = fills.map(({ ref, bytes, bytesTotal, clients }) => [
    ref,
    progressText(bytes, bytesTotal),
    String(clients),
  ]);
  const more = fillCount - fills.length;
  if (more > 0) rows.push([`and ${more} more`]);
  return tableText(
    [
      { heading: "DOWNLOAD", cut: "middle" },
      { heading: "PROGRESS" },
      { heading: "CLIENTS", align: "right" },
    ],
    rows,
    style,
  );
}

function jobTable(
  { running }: MirrorReport,
  style: OutputStyle,
  nowMs: number,
): string {
  if (running.jobs.length === 0) return "";
  return tableText(
    [
      { heading: "JOB", cut: "end" },
      { heading: "KIND" },
      { heading: "STATE" },
      { heading: "IMAGES" },
      { heading: "PROGRESS" },
      { heading: "ERRORS", align: "right" },
      { heading: "SINCE", cut: "end" },
    ],
    running.jobs.map((job) => [
      job.id,
      job.kind,
      jobState(job, nowMs),
      `${job.done} of ${job.total}`,
      progressText(job.bytes, job.bytesTotal),
      job.errorCount === 0
        ? "0"
        : { text: String(job.errorCount), colour: "red" },
      job.startedAt === null ? NONE : minuteText(job.startedAt),
    ]),
    style,
  );
}

function jobState({ state, waitsUntil }: Job, nowMs: number): string {
  return waitsUntil === null
    ? state
    : `waits ${durationText(Date.parse(waitsUntil) - nowMs)}`;
}

function progressText(bytes: number, bytesTotal: number | null): string {
  if (bytesTotal === null || bytesTotal === 0) return sizeText(bytes);
  return `${sizeText(bytes)} of ${sizeText(bytesTotal)} (${Math.floor((100 * bytes) / bytesTotal)} %)`;
}
