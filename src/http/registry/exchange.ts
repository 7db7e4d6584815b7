import type { BodySource } from "../../bodies/blob-answer.ts";
import type { CacheStatus } from "../../telemetry/cache-status.ts";
import { clip } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { RequestRecord } from "../../telemetry/request-log.ts";

/** The kinds of requests in logs and metrics: a closed list. */
export type RequestKind =
  | "manifest"
  | "tag"
  | "blob"
  | "tags"
  | "referrers"
  | "catalog"
  | "ping"
  | "other";

/** The parts of a request's head that are logged. */
export interface LoggedHead {
  readonly method: string | undefined;
  /** The raw request target. */
  readonly url: string | undefined;
  readonly userAgent: string | undefined;
}

/** One request and its response for logs and metrics. The routes fill it in. */
export class Exchange {
  kind: RequestKind = "other";
  upstream: string | undefined;
  /** Replaces the upstream's name in metrics, if the upstream was made from a template. */
  template: string | undefined;
  /** The hosted registry; no upstream is set then. */
  hosted: string | undefined;
  repository: string | undefined;
  reference: string | undefined;
  cache: CacheStatus | undefined;
  source: BodySource = "cache";
  /** Bytes of the body that were written to the connection. */
  sentBytes = 0;
  /** The authenticated user; undefined if anonymous. */
  user: string | undefined;
  /** The client's address, resolved through trusted proxies. */
  client: string | undefined;
  /** Logged in addition to the status. */
  error: unknown;
  readonly #startedAtMs = performance.now();

  /**
   * Counts and logs the request after the response was sent or the connection was closed.
   *
   * @param isWhole whether the kernel has accepted the whole response
   */
  report(
    { method, url, userAgent = "" }: LoggedHead,
    statusCode: number,
    isWhole: boolean,
    log: (record: RequestRecord) => void,
    metrics: Metrics,
  ): void {
    const durationMs = performance.now() - this.#startedAtMs;
    const { kind, upstream, repository, cache } = this;
    metrics.requests.add(
      {
        method: method !== undefined && METHODS.has(method) ? method : "OTHER",
        kind,
        status: isWhole
          ? (STATUS_CLASSES[Math.floor(statusCode / 100)] ?? "error")
          : "error",
        upstream: this.template ?? upstream,
        hosted: this.hosted,
        outcome: cache?.outcome,
        source: this.source,
      },
      this.sentBytes,
    );
    metrics.httpRequestDuration.observe({ kind }, durationMs / 1000);
    log({
      method,
      kind,
      upstream: upstream ?? this.hosted,
      repository,
      reference: this.reference,
      // Of a rejected path only its text is known.
      target:
        repository === undefined && kind === "other"
          ? clip(withoutQuery(url ?? ""))
          : undefined,
      outcome: cache?.outcome,
      statusCode,
      isWhole,
      sizeBytes: this.sentBytes,
      durationMs: Math.round(durationMs * 10) / 10,
      client: this.client,
      user: this.user,
      userAgent,
      err: this.error,
    });
  }
}

/** Methods that may label a metric. */
const METHODS = new Set([
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
]);

const STATUS_CLASSES = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];

function withoutQuery(target: string): string {
  const at = target.indexOf("?");
  // A client that uses `http://user:password@mirror` as a proxy sends it in the target.
  return (at === -1 ? target : target.slice(0, at)).replace(
    /^([a-z][a-z0-9+.-]*:\/\/)[^/]*@/i,
    "$1",
  );
}
