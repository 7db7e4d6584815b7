import type { MirrorStatus } from "../http/operator/api-status.ts";
import type { ImageServices } from "../images/create-images.ts";
import type { Jobs } from "../images/jobs/job.ts";
import { storedBytes } from "../storage/metadata-index.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { VERSION } from "../telemetry/version.ts";
import type { BuiltMirror } from "./build-mirror.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { BuiltUpstreams } from "./build-upstreams.ts";
import type { Foundation } from "./foundation.ts";
import { judgeReadiness, rememberTotals } from "./observation.ts";

/** More downloads are only counted. */
const MAX_LISTED_FILLS = 50;
/** As the dashboard counts them. */
const HITS: ReadonlySet<unknown> = new Set(["hit", "revalidated", "stale"]);
const NOT_COUNTED: ReadonlySet<unknown> = new Set(["negative", "error"]);

/** Returns a function that reports on the mirror as a whole. */
export function statusReporter(parts: {
  readonly foundation: Foundation;
  readonly upstreams: BuiltUpstreams;
  readonly storage: BuiltStorage;
  readonly mirror: BuiltMirror;
  readonly images: Pick<ImageServices, "summaries">;
  readonly jobs: Pick<Jobs, "list">;
}): () => Promise<MirrorStatus> {
  const { config, live, clock, metrics } = parts.foundation;
  const { set } = parts.upstreams;
  const { cache, evictor, room } = parts.storage;
  const startedAt = new Date(clock.nowMs()).toISOString();
  const currentTotals = rememberTotals(cache.index);
  return async () => {
    const totals = await currentTotals();
    const limitBytes = await evictor.limitBytes();
    const space = await cache.upkeep.readSpace();
    const { isReady, detail } = await judgeReadiness(cache, room, metrics);
    return {
      version: VERSION,
      startedAt,
      offline: live.config.offline,
      upstreams: set.mirrored.map(({ name }) => name),
      hosted: await parts.images.summaries.list(),
      health: { ready: isReady, detail },
      cache: await summarizeCache(metrics),
      storage: {
        root: config.storage.root,
        bytes: storedBytes(totals),
        limitBytes: Number.isFinite(limitBytes) ? limitBytes : null,
        freeBytes: space?.freeBytes ?? null,
        blobs: totals.blobs,
        manifests: totals.manifests,
        tags: totals.tags,
        ...(await summarizeEvictions(metrics)),
      },
      running: {
        ...listFills(parts.mirror),
        jobs: parts.jobs
          .list({ n: Infinity, last: undefined })
          .items.filter(({ endedAt }) => endedAt === null),
      },
    };
  };
}

/** Sums what the counters counted since the start. */
async function summarizeCache(
  metrics: Pick<
    Metrics,
    "cacheRequests" | "servedBytes" | "upstreamReceivedBytes"
  >,
): Promise<MirrorStatus["cache"]> {
  let requests = 0;
  let hits = 0;
  for (const { labels, value } of (await metrics.cacheRequests.get()).values) {
    if (NOT_COUNTED.has(labels.outcome)) continue;
    requests += value;
    if (HITS.has(labels.outcome)) hits += value;
  }
  const servedBytes = await sumOf(metrics.servedBytes);
  const receivedBytes = await sumOf(metrics.upstreamReceivedBytes);
  return {
    requests,
    hits,
    hitRatio: requests === 0 ? null : hits / requests,
    servedBytes,
    receivedBytes,
    savedBytes: Math.max(0, servedBytes - receivedBytes),
  };
}

async function summarizeEvictions(
  metrics: Pick<Metrics, "evictedImages" | "oldestEvictedAge">,
): Promise<
  Pick<MirrorStatus["storage"], "evictedImages" | "oldestEvictedAgeSeconds">
> {
  const evictedImages = await sumOf(metrics.evictedImages);
  return {
    evictedImages,
    oldestEvictedAgeSeconds:
      evictedImages === 0 ? null : await sumOf(metrics.oldestEvictedAge),
  };
}

async function sumOf(metric: {
  get(): Promise<{ readonly values: readonly { readonly value: number }[] }>;
}): Promise<number> {
  const { values } = await metric.get();
  return values.reduce((sum, { value }) => sum + value, 0);
}

function listFills({
  mirror,
}: Pick<BuiltMirror, "mirror">): Pick<
  MirrorStatus["running"],
  "fillCount" | "fills"
> {
  const fills = mirror.listFills();
  return {
    fillCount: fills.length,
    fills: fills
      .slice(0, MAX_LISTED_FILLS)
      .map(({ key, digest, receivedBytes, sizeBytes, clients }) => ({
        ref: `${key.upstream}/${key.repository}@${digest}`,
        bytes: receivedBytes,
        bytesTotal: sizeBytes ?? null,
        clients,
      })),
  };
}
