import type { UpstreamErrorKind } from "./errors.ts";

/** What a request upstream is for; `token` covers the search for a challenge too. */
export type UpstreamRequestKind =
  "manifest" | "blob" | "tags" | "referrers" | "token";

export interface UpstreamResponseEvent {
  readonly kind: UpstreamRequestKind;
  readonly method: "GET" | "HEAD" | "POST";
  /** `error` where no answer came. */
  readonly status: number | "error";
  /** From the dial to the headers. */
  readonly durationMs: number;
}

/** Told of everything that goes over the wire of one upstream; bound to metrics and logs. */
export interface UpstreamObserver {
  /** Each answer and each failed dial: redirects, challenges and retries count one by one. */
  onResponse(event: UpstreamResponseEvent): void;
  /** Bytes of bodies, as they come in. */
  onReceivedBytes(bytes: number): void;
  /** An endpoint's breaker opened or closed. */
  onEndpoint(endpoint: string, isUp: boolean): void;
  /** For the log: an endpoint was passed over, a realm or a redirect refused. Holds no secret. */
  onFault(kind: UpstreamErrorKind, message: string): void;
  /** For the log: a credential could not be read, by no fault of the upstream. Holds no secret. */
  onCredentialFault(credential: string, message: string): void;
}
