import type { BreakerState } from "./breaker.ts";
import type { UpstreamError, UpstreamErrorKind } from "../wire/errors.ts";
import type { CredentialState } from "./credentials/credential-pool.ts";

/** An account at one endpoint. */
export interface UpstreamAccount extends CredentialState {
  readonly endpoint: string;
}

/** The last failure of an endpoint. */
export interface LastError {
  /** Epoch time. */
  readonly atMs: number;
  readonly kind: UpstreamErrorKind;
  /** A text for the operator; without credentials and signed queries. */
  readonly message: string;
}

export interface EndpointStatus {
  readonly url: string;
  readonly breaker: BreakerState;
  /** Time until a probe is allowed; 0 if one is allowed now or the endpoint is up. */
  readonly retryAfterMs: number;
  readonly lastError: LastError | undefined;
}

/** The state of an upstream for the operator. */
export interface UpstreamStatus {
  readonly name: string;
  /** `unauthorized`: no token or login is available, so that every request fails. */
  readonly state: "up" | "down" | "unauthorized" | "offline";
  /** In the order in which they are tried. */
  readonly endpoints: readonly EndpointStatus[];
  readonly credentials: readonly UpstreamAccount[];
  /** Bearer tokens in memory. */
  readonly tokensHeld: number;
}

export function toLastError(error: UpstreamError, nowMs: number): LastError {
  return { atMs: nowMs, kind: error.kind, message: error.message };
}
