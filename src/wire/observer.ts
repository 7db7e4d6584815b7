import type { UpstreamErrorKind } from "./errors.ts";

/** The purpose of a request to an upstream; `token` includes the request for a challenge. */
export type UpstreamRequestKind =
  "manifest" | "blob" | "tags" | "referrers" | "token";

export interface UpstreamResponseEvent {
  readonly kind: UpstreamRequestKind;
  readonly method: "GET" | "HEAD" | "POST";
  /** `error` if no answer was received. */
  readonly status: number | "error";
  /** From the dial to the headers. */
  readonly durationMs: number;
}

/** Receives the events of one upstream for metrics and logs. */
export interface UpstreamObserver {
  /** An answer or a failed dial; each redirect, challenge and retry is reported separately. */
  onResponse(event: UpstreamResponseEvent): void;
  /** Body bytes were received. */
  onReceivedBytes(bytes: number): void;
  /** An endpoint's breaker opened or closed. */
  onEndpoint(endpoint: string, isUp: boolean): void;
  /** For the log: an endpoint was skipped, a realm or a redirect refused. The message holds no secret. */
  onFault(kind: UpstreamErrorKind, message: string): void;
  /** For the log: a credential could not be read, which is not the upstream's fault. The message holds no secret. */
  onCredentialFault(credential: string, message: string): void;
}
