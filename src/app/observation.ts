import { StorageError } from "../storage/blob-store.ts";
import { type IndexTotals, storedBytes } from "../storage/metadata-index.ts";
import type { IndexState } from "../storage/metadata-index.ts";
import type { Storage } from "../storage/storage.ts";
import type { Room } from "../retention/room.ts";
import type { UpstreamConfig } from "../config/config.ts";
import type { Readiness } from "../http/operator/operator-routes.ts";
import type { MirroredUpstream } from "../mirror/mirrored-upstream.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { UpstreamObserver } from "../wire/observer.ts";

/** Brings the gauges of the storage up to date. */
export async function refreshMetrics(
  { index }: Pick<Storage, "index">,
  metrics: Metrics,
): Promise<void> {
  const totals = await index.totals().catch(() => undefined);
  // An index that does not answer now has the sums of before.
  if (totals === undefined) return;
  metrics.storageBytes.set(storedBytes(totals));
  metrics.storageObjects.set({ kind: "blob" }, totals.blobs);
  metrics.storageObjects.set({ kind: "manifest" }, totals.manifests);
  metrics.storageObjects.set({ kind: "tag" }, totals.tags);
}

/** The sums of the index; while it does not answer, those of before. */
export function rememberTotals(
  index: Pick<IndexState, "totals">,
): () => Promise<IndexTotals> {
  let last: IndexTotals = {
    blobBytes: 0,
    blobs: 0,
    manifests: 0,
    tags: 0,
    listBytes: 0,
  };
  return async () => {
    last = await index.totals().catch(() => last);
    return last;
  };
}

/** When they are asked for: a count is forgotten with time, and nothing tells when. */
export function refreshBudgets(
  upstreams: readonly MirroredUpstream[],
  metrics: Metrics,
): void {
  metrics.upstreamRatelimitLimit.reset();
  metrics.upstreamRatelimitRemaining.reset();
  for (const { metricLabel: upstream, client } of upstreams) {
    // Of several endpoints that count an account the first one's, which is set last.
    for (const { name: credential, budget } of client.accounts().toReversed()) {
      if (budget === undefined) continue;
      const labels = { upstream, credential };
      const { limit, remaining } = budget;
      metrics.upstreamRatelimitRemaining.set(labels, remaining);
      if (limit === undefined) continue;
      metrics.upstreamRatelimitLimit.set(labels, limit);
    }
  }
}

/**
 * Ready is who can answer: the index must. A storage that takes no writes is told and counted, but
 * downloads are passed through, so it is no reason to be taken out of service.
 */
export async function judgeReadiness(
  cache: Pick<Storage, "index" | "upkeep" | "probe">,
  room: Room,
  metrics: Metrics,
): Promise<Readiness> {
  const { upkeep } = cache;
  if (upkeep.absence !== undefined) {
    metrics.storageDegraded.set(1);
    const detail = { index: "away", storage: `degraded: ${upkeep.absence}` };
    return { isReady: true, detail };
  }
  const [index, storage] = await Promise.allSettled([
    cache.index.probe(),
    cache.probe(),
  ]);
  const fault =
    storage.status === "rejected"
      ? faultCode(storage.reason)
      : room.isShort || upkeep.isOutOfRoom
        ? "ENOSPC"
        : undefined;
  const isDegraded = fault !== undefined;
  metrics.storageDegraded.set(isDegraded ? 1 : 0);
  const indexDetail = upkeep.isRecovering ? "ok, recovering" : "ok";
  return {
    isReady: index.status === "fulfilled",
    detail: {
      index: index.status === "fulfilled" ? indexDetail : "does not answer",
      storage: isDegraded ? `degraded: ${fault}` : "ok",
    },
  };
}

function faultCode(error: unknown): string {
  return error instanceof StorageError ? error.code : "unknown";
}

/**
 * Binds what happens upstream to metrics and the log. Clients choose the names of upstreams that are
 * made from templates: they are counted together, and have no gauge of their endpoints.
 *
 * @param onAnswered called whenever the registry, or a server that it leads to, has answered
 */
export function createObserver(
  upstream: UpstreamConfig,
  metrics: Metrics,
  log: Logger,
  onAnswered: () => void,
): UpstreamObserver {
  const { name, template } = upstream;
  const label = template ?? name;
  const setUp = (endpoint: string, isUp: boolean): void => {
    if (template !== undefined) return;
    metrics.upstreamUp.set({ upstream: name, endpoint }, isUp ? 1 : 0);
  };
  for (const endpoint of upstream.endpoints) setUp(endpoint, true);
  return {
    onResponse: ({ kind, method, status, durationMs }) => {
      if (status !== "error" && status < 500) onAnswered();
      metrics.upstreamRequests.inc({ upstream: label, kind, method, status });
      metrics.upstreamRequestDuration.observe(
        { upstream: label, kind },
        durationMs / 1000,
      );
    },
    onReceivedBytes: (bytes) => {
      metrics.upstreamReceivedBytes.inc({ upstream: label }, bytes);
    },
    onEndpoint: (endpoint, isUp) => {
      setUp(endpoint, isUp);
      log[isUp ? "info" : "warn"](
        { upstream: name, endpoint },
        isUp ? "the endpoint is back" : "the endpoint is down",
      );
    },
    onFault: (kind, message) => {
      log.warn({ upstream: name, kind, fault: message }, "upstream fault");
    },
    onCredentialFault: (credential, message) => {
      log.warn(
        { upstream: name, credential, fault: message },
        "the mirror's own credentials can't be read",
      );
    },
  };
}
