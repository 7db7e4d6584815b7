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

/** Updates the gauges of the storage. */
export async function refreshMetrics(
  { index, upkeep }: Pick<Storage, "index" | "upkeep">,
  metrics: Metrics,
): Promise<void> {
  const totals = await index.totals().catch(() => undefined);
  // The gauges keep their values while the index does not answer.
  if (totals === undefined) return;
  metrics.storageBytes.set(storedBytes(totals));
  metrics.storageObjects.set({ kind: "blob" }, totals.blobs);
  metrics.storageObjects.set({ kind: "manifest" }, totals.manifests);
  metrics.storageObjects.set({ kind: "tag" }, totals.tags);
  // The index would answer only after the hosted rows are restored, which takes longer than a scrape waits.
  if (upkeep.isRecovering) return;
  const registries = await index.listHostedRegistries().catch(() => undefined);
  if (registries === undefined) return;
  // A registry without content is no longer listed.
  metrics.hostedBytes.reset();
  for (const { registry, bytes } of registries)
    metrics.hostedBytes.set({ registry }, bytes);
}

/** Returns a reader of the index's totals; while the index does not answer, it returns the last ones. */
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

/** Updates the gauges of pull limits. Called at each scrape, because a count expires without an event. */
export function refreshBudgets(
  upstreams: readonly MirroredUpstream[],
  metrics: Metrics,
): void {
  metrics.upstreamRatelimitLimit.reset();
  metrics.upstreamRatelimitRemaining.reset();
  for (const { metricLabel: upstream, client } of upstreams) {
    // If several endpoints count an account, the first endpoint's value is set last and stays.
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
 * Returns whether the mirror can answer, which needs the index. A storage that accepts no writes is
 * reported in the detail and by a metric only: pulls still pass through.
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
 * Connects the events of an upstream to metrics and the log. Clients choose the names of upstreams
 * made from templates: these share the template's label, and their endpoints have no gauge.
 *
 * @param onAnswered called whenever the registry, or a server that it redirects to, has answered
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
        isUp ? "the endpoint answers again" : "the endpoint is down now",
      );
    },
    onFault: (kind, message) => {
      log.warn(
        { upstream: name, kind, fault: message },
        "the upstream answered with a fault",
      );
    },
    onCredentialFault: (credential, message) => {
      log.warn(
        { upstream: name, credential, fault: message },
        "could not read the credentials for the upstream",
      );
    },
  };
}
