import type { BreakerState } from "./breaker.ts";
import type { UpstreamError, UpstreamErrorKind } from "../wire/errors.ts";
import type { CredentialState } from "./credentials/credential-pool.ts";

/** An account at one endpoint. */
export interface UpstreamAccount extends CredentialState {
  readonly endpoint: string;
}

/** The last thing that went wrong somewhere. */
export interface LastError {
  /** Epoch. */
  readonly atMs: number;
  readonly kind: UpstreamErrorKind;
  /** For an operator; holds no credential and no signed query. */
  readonly message: string;
}

export interface EndpointStatus {
  readonly url: string;
  readonly breaker: BreakerState;
  /** Until it may be probed; 0 where it is up or a probe may go now. */
  readonly retryAfterMs: number;
  readonly lastError: LastError | undefined;
}

/** What an operator is shown of an upstream. */
export interface UpstreamStatus {
  readonly name: string;
  /** `unauthorized`: no token or login can be had, so that every request fails. */
  readonly state: "up" | "down" | "unauthorized" | "offline";
  /** In the order in which they are asked. */
  readonly endpoints: readonly EndpointStatus[];
  readonly credentials: readonly UpstreamAccount[];
  /** Bearer tokens in memory. */
  readonly tokensHeld: number;
}

export function toLastError(error: UpstreamError, nowMs: number): LastError {
  return { atMs: nowMs, kind: error.kind, message: error.message };
}
