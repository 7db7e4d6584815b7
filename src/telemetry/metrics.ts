import {
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  Registry,
} from "prom-client";
import { RequestCounts } from "./request-counts.ts";

const LATENCY_BUCKETS_SECONDS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
  10, 18,
];

export type Metrics = ReturnType<typeof createMetrics>;

/**
 * Creates every metric of the program, in a registry of its own: two apps in one process never mix.
 * Labels come from closed lists (upstreams of the configuration, kinds, outcomes); never a
 * repository, a tag or a digest.
 */
export function createMetrics(version: string) {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });

  const counter = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[] = [],
    collect?: () => void,
  ) =>
    new Counter<L>({
      name: `entrepot_${name}`,
      help,
      labelNames: [...labelNames],
      registers,
      ...(collect === undefined ? {} : { collect }),
    });
  const gauge = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[] = [],
  ) =>
    new Gauge<L>({
      name: `entrepot_${name}`,
      help,
      labelNames: [...labelNames],
      registers,
    });
  const latency = <L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
  ) =>
    new Histogram<L>({
      name: `entrepot_${name}`,
      help,
      labelNames: [...labelNames],
      buckets: LATENCY_BUCKETS_SECONDS,
      registers,
    });

  const buildInfo = gauge("build_info", "Always 1.", ["version", "node"]);
  buildInfo.set({ version, node: process.version }, 1);

  const requests = new RequestCounts();
  /** Runs for the first counter that is read. */
  const settle = (): void => {
    for (const count of requests.take()) {
      const { method, kind, status, upstream, hosted, outcome, source } = count;
      httpRequests.inc({ method, kind, status }, count.requests);
      if (hosted !== undefined && count.sentBytes > 0) {
        hostedServedBytes.inc({ registry: hosted }, count.sentBytes);
      }
      if (upstream === undefined) continue;
      if (outcome !== undefined) {
        cacheRequests.inc({ upstream, kind, outcome }, count.requests);
      }
      if (count.sentBytes > 0) {
        servedBytes.inc({ upstream, source }, count.sentBytes);
      }
    }
  };
  const httpRequests = counter(
    "http_requests_total",
    "Requests to the registry API; status is 2xx to 5xx, or error if the connection was closed early.",
    ["method", "kind", "status"],
    settle,
  );
  const cacheRequests = counter(
    "cache_requests_total",
    "Requests by outcome in the cache.",
    ["upstream", "kind", "outcome"],
    settle,
  );
  const servedBytes = counter(
    "served_bytes_total",
    "Bytes of bodies sent, by source.",
    ["upstream", "source"],
    settle,
  );
  const hostedServedBytes = counter(
    "hosted_served_bytes_total",
    "Bytes of bodies sent from hosted repositories.",
    ["registry"],
    settle,
  );

  return {
    registry,
    /** The values that {@link httpRequests}, {@link cacheRequests}, {@link servedBytes} and {@link hostedServedBytes} report when they are read. */
    requests,
    httpRequests,
    httpRequestDuration: latency(
      "http_request_duration_seconds",
      "Time to the end of the response.",
      ["kind"],
    ),
    cacheRequests,
    servedBytes,
    hostedServedBytes,
    upstreamRequests: counter(
      "upstream_requests_total",
      "Requests to upstreams; status is the code, or error if there was no response.",
      ["upstream", "kind", "method", "status"],
    ),
    upstreamRequestDuration: latency(
      "upstream_request_duration_seconds",
      "Time to the headers of an upstream's response.",
      ["upstream", "kind"],
    ),
    upstreamReceivedBytes: counter(
      "upstream_received_bytes_total",
      "Bytes of bodies received from upstreams.",
      ["upstream"],
    ),
    upstreamResumes: counter(
      "upstream_resumes_total",
      "Broken downloads that were resumed.",
      ["upstream"],
    ),
    upstreamUp: gauge(
      "upstream_up",
      "1 while the endpoint's breaker is closed.",
      ["upstream", "endpoint"],
    ),
    upstreamRatelimitLimit: gauge(
      "upstream_ratelimit_limit",
      "Pulls that the upstream allows a credential in its window.",
      ["upstream", "credential"],
    ),
    upstreamRatelimitRemaining: gauge(
      "upstream_ratelimit_remaining",
      "Pulls that the upstream reported as remaining; absent if it reported nothing within its window.",
      ["upstream", "credential"],
    ),
    fillsInProgress: gauge("fills_in_progress", "Downloads into the cache.", [
      "upstream",
    ]),
    fillFailures: counter(
      "fill_failures_total",
      "Downloads that ended without a verified blob.",
      ["upstream", "reason"],
    ),
    unknownRegistries: counter(
      "unknown_registries_total",
      "Requests that named a registry that is not among the upstreams or hosted registries: in ns, before /v2/ (prefix) or as first component.",
      ["by"],
    ),
    digestMismatches: counter(
      "digest_mismatches_total",
      "Bodies whose bytes did not match their digest.",
    ),
    uploadsInProgress: gauge(
      "uploads_in_progress",
      "Uploads that were started and not completed, cancelled or dropped.",
      ["registry"],
    ),
    pushedBytes: counter(
      "pushed_bytes_total",
      "Bytes received by hosted registries.",
      ["registry"],
    ),
    evictedImages: counter(
      "evicted_images_total",
      "Images that were evicted, by reason: size, free, idle, operator or index.",
      ["reason"],
    ),
    evictedBytes: counter(
      "evicted_bytes_total",
      "Bytes freed by evicting images.",
    ),
    oldestEvictedAge: gauge(
      "oldest_evicted_age_seconds",
      "Time since the last pull of the most recently evicted image.",
    ),
    storageLimitBytes: gauge(
      "storage_limit_bytes",
      "Bytes of blobs above which images are evicted.",
    ),
    diskBytes: gauge(
      "disk_bytes",
      "Size of the file system that holds the storage root.",
    ),
    diskFreeBytes: gauge(
      "disk_free_bytes",
      "Bytes that are free on that file system.",
    ),
    collectedBytes: counter(
      "collected_bytes_total",
      "Bytes of hosted repositories that were removed because nothing needed them.",
    ),
    hostedBytes: gauge(
      "hosted_bytes",
      "Bytes of the distinct digests of a hosted registry.",
      ["registry"],
    ),
    notifications: counter(
      "notifications_total",
      "Notification events: delivered, retried, rejected by the endpoint, or dropped.",
      ["outcome"],
    ),
    scrubFindings: counter(
      "scrub_findings_total",
      "Findings of scrubs, by code.",
      ["code"],
    ),
    readVerifications: counter(
      "read_verifications_total",
      "Stored blobs that were verified because they were read: right, wrong, or unknown if they could not be read.",
      ["outcome"],
    ),
    storageBytes: gauge("storage_bytes", "Bytes of all blobs in the cache."),
    storageObjects: gauge("storage_objects", "Objects in the cache.", ["kind"]),
    storageDegraded: gauge(
      "storage_degraded",
      "1 while the storage accepts no writes and downloads are passed through.",
    ),
  };
}
