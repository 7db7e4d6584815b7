import type { BodySource } from "../../mirror/blobs/blob-answer.ts";
import type { CacheStatus } from "../../telemetry/cache-status.ts";
import { clip } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { RequestRecord } from "../../telemetry/request-log.ts";

/** What is asked for, in logs and metrics: a closed list. */
export type RequestKind =
  | "manifest"
  | "tag"
  | "blob"
  | "tags"
  | "referrers"
  | "catalog"
  | "ping"
  | "other";

/** What is told of a request's head. */
export interface AskedHead {
  readonly method: string | undefined;
  /** The raw request target. */
  readonly url: string | undefined;
  readonly userAgent: string | undefined;
}

/** One request and its answer, as logs and metrics see them; filled in on the way. */
export class Exchange {
  kind: RequestKind = "other";
  upstream: string | undefined;
  /** In the place of the upstream's name in metrics; undefined: its name. */
  template: string | undefined;
  repository: string | undefined;
  reference: string | undefined;
  cache: CacheStatus | undefined;
  source: BodySource = "cache";
  /** Bytes of the body that were handed to the connection. */
  sentBytes = 0;
  /** Who asks, where that is known: no client's own word for it. */
  user: string | undefined;
  /** The client's address, behind trusted proxies too. */
  client: string | undefined;
  /** Told to the log beside the status. */
  error: unknown;
  readonly #startedAtMs = performance.now();

  /**
   * Counts and logs it once the answer is out or the connection is gone.
   *
   * @param isWhole all of the answer is with the kernel
   */
  report(
    { method, url, userAgent = "" }: AskedHead,
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
        outcome: cache?.outcome,
        source: this.source,
      },
      this.sentBytes,
    );
    metrics.httpRequestDuration.observe({ kind }, durationMs / 1000);
    log({
      method,
      kind,
      upstream,
      repository,
      reference: this.reference,
      // Where the path was refused nothing of it is known but its text.
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
  // A client that was given `http://user:password@mirror` as a proxy writes it out.
  return (at === -1 ? target : target.slice(0, at)).replace(
    /^([a-z][a-z0-9+.-]*:\/\/)[^/]*@/i,
    "$1",
  );
}
