import {
  type DroppedBlob,
  type ScrubReport,
  SCRUB_CODES,
  type ScrubFinding,
} from "../storage/scrub-report.ts";
import type { BlobRow } from "../storage/blob-index.ts";
import type { Storage } from "../storage/storage.ts";
import { Healer } from "../images/heal.ts";
import type { Mirror } from "../mirror/mirror.ts";
import type { RepositoryKey } from "../oci/reference.ts";
import type { Foundation } from "./foundation.ts";

export interface Scrubbing {
  /** Verifies the whole storage, on an operator's order. */
  readonly scrub: (options: {
    readonly isRepair: boolean;
    readonly signal: AbortSignal;
  }) => Promise<ScrubReport>;
  /** Removes a blob whose bytes were found wrong while being served, and fetches it again. */
  readonly drop: (
    row: BlobRow,
    verdict: "wrong" | "unreadable",
  ) => Promise<void>;
  stop(): Promise<void>;
}

function pathOf({ upstream, repository }: RepositoryKey): string {
  return `${upstream}/${repository}`;
}

/** Creates the scrub that an operator orders, and starts the one in the background. */
export function startScrubbing(
  { live, overrides, log, metrics }: Foundation,
  { index, upkeep }: Pick<Storage, "index" | "upkeep">,
  mirror: Mirror,
): Scrubbing {
  const healer = new Healer({
    mirror,
    index,
    log,
    isUpstream: (upstream) =>
      live.config.upstreams.some(({ name }) => name === upstream),
  });
  const isHosted = ({ upstream }: RepositoryKey): boolean =>
    live.config.hosted.some(({ name }) => name === upstream);
  /** Logs damaged hosted content, which only a push can restore. */
  const logHosted = ({ digest, repositories, tags }: DroppedBlob): void => {
    const hosted = repositories.filter(isHosted);
    if (hosted.length === 0) return;
    log.error(
      {
        digest,
        repositories: hosted.map(pathOf),
        tags: tags
          .filter(({ key }) => isHosted(key))
          .map(({ key, tag }) => `${pathOf(key)}:${tag}`),
      },
      "removed damaged bytes of hosted repositories; push the image again",
    );
  };
  const abort = new AbortController();
  for (const code of SCRUB_CODES) metrics.scrubFindings.inc({ code }, 0);
  const note = (finding: ScrubFinding): void => {
    metrics.scrubFindings.inc({ code: finding.code });
    log.warn(finding, "scrub found faulty content");
  };
  const onDropped = (dropped: DroppedBlob): void => {
    logHosted(dropped);
    if (!live.config.offline) void healer.heal(dropped, abort.signal);
  };
  const background = upkeep.startBackgroundScrub({
    dailyShare: () => live.config.scrub.dailyShare,
    onFinding: note,
    onDropped,
    schedule: overrides.scrubSchedule,
  });
  let running: Promise<unknown> = Promise.resolve();
  return {
    scrub: ({ isRepair, signal }) => {
      const scrub = upkeep.scrub({
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
      let findings: readonly ScrubFinding[] = [];
      await mirror.dropWrong(row, async () => {
        findings = await upkeep.dropBlob(row.digest, verdict, onDropped);
        return findings.every(({ repaired }) => repaired);
      });
      findings.forEach(note);
    },
    stop: async () => {
      abort.abort();
      await Promise.all([background.stop(), running]);
    },
  };
}
