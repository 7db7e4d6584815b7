import {
  type ScrubReport,
  SCRUB_CODES,
  type ScrubFinding,
} from "../storage/scrub-report.ts";
import { BackgroundScrub } from "../storage/local/upkeep/background-scrub.ts";
import type { OpenedCache } from "../storage/local/open-cache.ts";
import type { BlobRow } from "../storage/blob-index.ts";
import { Scrub } from "../storage/local/upkeep/scrub.ts";
import { Healer } from "../images/heal.ts";
import type { Mirror } from "../mirror/mirror.ts";
import type { Foundation } from "./foundation.ts";

export interface Scrubbing {
  /** All of it, asked for by the operator. */
  readonly scrub: (options: {
    readonly isRepair: boolean;
    readonly signal: AbortSignal;
  }) => Promise<ScrubReport>;
  /** Takes a blob away whose bytes were found wrong while they were served, and fetches it again. */
  readonly drop: (
    row: BlobRow,
    verdict: "wrong" | "unreadable",
  ) => Promise<void>;
  stop(): Promise<void>;
}

/** Creates the scrub that an operator orders, and starts the one in the background. */
export function startScrubbing(
  { live, overrides, clock, log, metrics }: Foundation,
  cache: OpenedCache,
  mirror: Mirror,
): Scrubbing {
  const healer = new Healer({
    mirror,
    index: cache.index,
    log,
    isUpstream: (upstream) =>
      live.config.upstreams.some(({ name }) => name === upstream),
  });
  const abort = new AbortController();
  for (const code of SCRUB_CODES) metrics.scrubFindings.inc({ code }, 0);
  const note = (finding: ScrubFinding): void => {
    metrics.scrubFindings.inc({ code: finding.code });
    log.warn(finding, "scrub");
  };
  const onDropped: BackgroundScrubHook = (dropped) => {
    if (!live.config.offline) void healer.heal(dropped, abort.signal);
  };
  const background = new BackgroundScrub({
    cache,
    dailyShare: () => live.config.scrub.dailyShare,
    clock,
    log,
    onFinding: note,
    onDropped,
    ...(overrides.scrubSchedule === undefined
      ? {}
      : { schedule: overrides.scrubSchedule }),
  });
  let running: Promise<unknown> = Promise.resolve();
  return {
    scrub: ({ isRepair, signal }) => {
      const scrub = cache.scrub({
        isRepair,
        signal: AbortSignal.any([signal, abort.signal]),
        onDropped,
      });
      running = scrub.then(
        ({ findings }) => findings.forEach(note),
        () => undefined,
      );
      return scrub;
    },
    drop: async (row, verdict) => {
      const scrub = new Scrub({
        ...cache.scrubParts,
        index: { audit: cache.audit, rows: cache.index },
        isRepair: true,
        isOnline: true,
        onDropped,
      });
      await mirror.dropWrong(row, async () => {
        await scrub.dropBlob(
          verdict === "wrong" ? "blob-corrupt" : "blob-unreadable",
          row.digest,
        );
        return scrub.report.findings.every(({ repaired }) => repaired);
      });
      scrub.report.findings.forEach(note);
    },
    stop: async () => {
      abort.abort();
      await Promise.all([background.stop(), running]);
    },
  };
}

type BackgroundScrubHook = ConstructorParameters<
  typeof BackgroundScrub
>[0]["onDropped"];
