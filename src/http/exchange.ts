import type { IncomingMessage, ServerResponse } from "node:http";
import type { BodySource } from "../mirror/blobs.ts";
import type { CacheStatus } from "../telemetry/cache-status.ts";
import { clip } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { RequestRecord } from "../telemetry/request-log.ts";

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

/** One request and its answer, as logs and metrics see them; filled in on the way. */
export class Exchange {
  kind: RequestKind = "other";
  upstream: string | undefined;
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

  /** Counts and logs it once the answer is out or the connection is gone. */
  report(
    request: IncomingMessage,
    response: ServerResponse,
    log: (record: RequestRecord) => void,
    metrics: Metrics,
  ): void {
    const durationMs = performance.now() - this.#startedAtMs;
    const { kind, upstream, repository, cache } = this;
    const { method = "" } = request;
    const { statusCode } = response;
    const isWhole = response.writableFinished;
    metrics.requests.add(
      {
        method: METHODS.has(method) ? method : "OTHER",
        kind,
        status: isWhole
          ? (STATUS_CLASSES[Math.floor(statusCode / 100)] ?? "error")
          : "error",
        upstream,
        outcome: cache?.outcome,
        source: this.source,
      },
      this.sentBytes,
    );
    metrics.httpRequestDuration.observe({ kind }, durationMs / 1000);
    log({
      method: request.method,
      kind,
      upstream,
      repository,
      reference: this.reference,
      // Where the path was refused nothing of it is known but its text.
      target:
        repository === undefined && kind === "other"
          ? clip(withoutQuery(request))
          : undefined,
      outcome: cache?.outcome,
      statusCode,
      isWhole,
      sizeBytes: this.sentBytes,
      durationMs: Math.round(durationMs * 10) / 10,
      client: this.client ?? request.socket.remoteAddress,
      user: this.user,
      userAgent: request.headers["user-agent"] ?? "",
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

function withoutQuery(request: IncomingMessage): string {
  const target = request.url ?? "";
  const at = target.indexOf("?");
  // A client that was given `http://user:password@mirror` as a proxy writes it out.
  return (at === -1 ? target : target.slice(0, at)).replace(
    /^([a-z][a-z0-9+.-]*:\/\/)[^/]*@/i,
    "$1",
  );
}
