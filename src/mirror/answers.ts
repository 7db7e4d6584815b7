import { RegistryError, type RegistryErrorCode } from "../oci/errors.ts";
import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import { UpstreamError } from "../wire/errors.ts";

/** containerd retries immediately, and c/image waits exactly this long: a larger value has no use. */
const MAX_CLIENT_RETRY_AFTER_MS = 10_000;

/** Used if the upstream sent no `Retry-After`. */
const DEFAULT_RETRY_AFTER_MS = 5_000;

/** The kind of content requested; it decides which of the spec's codes reports its absence. */
export type Wanted = "manifest" | "blob" | "list";

const UNKNOWN: Readonly<Record<Wanted, RegistryErrorCode>> = {
  manifest: "MANIFEST_UNKNOWN",
  blob: "BLOB_UNKNOWN",
  list: "NAME_UNKNOWN",
};

/**
 * Whether a stale answer may replace an error.
 *
 * - `never`: the upstream gave a definite answer
 * - `when-complete`: only if the pull can be completed from the cache
 * - `always`: the blobs can still be fetched
 */
export type StaleOffer = "never" | "when-complete" | "always";

export interface Verdict {
  readonly error: RegistryError;
  readonly stale: StaleOffer;
}

/**
 * Maps an upstream's failure to the client's error; the only place that does. The error contains no
 * text of the upstream, and its challenge is never relayed.
 */
export function judgeUpstreamFailure(
  failure: UpstreamError,
  context: { readonly wanted: Wanted; readonly hasCredentials: boolean },
): Verdict {
  const retryAfterMs = Math.min(
    MAX_CLIENT_RETRY_AFTER_MS,
    failure.retryAfterMs ?? DEFAULT_RETRY_AFTER_MS,
  );
  const verdict = (
    stale: StaleOffer,
    code: RegistryErrorCode,
    options: {
      detail?: string;
      status?: number;
      retryAfterMs?: number;
    } = {},
  ): Verdict => ({
    stale,
    error: new RegistryError(code, { ...options, cause: failure }),
  });
  switch (failure.kind) {
    case "not-found":
      return verdict("never", UNKNOWN[context.wanted]);
    case "unauthorized":
    case "denied":
      // Registries respond like this for repositories that do not exist; a relayed 401 would make
      // engines send their users' credentials to the mirror.
      return context.hasCredentials
        ? verdict("always", "DENIED", {
            detail: failure.isLocal
              ? "the mirror's own credentials for the upstream cannot be read"
              : "the upstream refused the mirror's credentials",
          })
        : verdict("never", "NAME_UNKNOWN");
    case "rate-limited":
      return verdict("always", "TOOMANYREQUESTS", {
        detail: "the upstream's rate limit is reached",
        retryAfterMs,
      });
    case "breaker-open":
    case "overloaded":
      return verdict("when-complete", "UNAVAILABLE", {
        status: 503,
        detail:
          failure.kind === "overloaded"
            ? "too many requests are waiting for the upstream"
            : "the upstream is down",
        retryAfterMs,
      });
    case "timeout":
      return verdict("when-complete", "UNAVAILABLE", {
        status: 504,
        detail: "the upstream did not respond in time",
      });
    case "too-large":
      return verdict("when-complete", "MANIFEST_INVALID", {
        detail: "the upstream's response is too large",
      });
    case "digest-mismatch":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream's bytes do not match the digest",
      });
    case "bad-response":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream's response is not that of a registry",
      });
    case "unreachable":
    case "interrupted":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream cannot be reached",
      });
    case "unavailable":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream failed",
      });
    default:
      return failure.kind satisfies never;
  }
}

/**
 * Why content could not be had, as far as that is definite:
 *
 * - `offline`: it is not stored, and no upstream may be asked
 * - `denied`: the configuration or the upstream refuses it
 * - `absent`: the upstream does not have it
 */
export const ABSENCES = ["offline", "denied", "absent"] as const;

export type Absence = (typeof ABSENCES)[number];

/** An answer without content: the error, and what the cache did for the request. */
export class Refusal extends Error {
  readonly error: RegistryError;
  readonly status: CacheStatus;
  /** Undefined if a later request may succeed, or if the refusal does not say. */
  readonly absence: Absence | undefined;

  constructor(error: RegistryError, status: CacheStatus, absence?: Absence) {
    super(error.message, { cause: error });
    this.name = "Refusal";
    this.error = error;
    this.status = status;
    this.absence = absence;
  }
}

function absenceOf({ kind, isLocal }: UpstreamError): Absence | undefined {
  if (kind === "not-found") return "absent";
  // A login that cannot be read says nothing about the content.
  const isDenied = (kind === "unauthorized" || kind === "denied") && !isLocal;
  return isDenied ? "denied" : undefined;
}

/** Returns the status of a stale answer that replaces a failure. */
export function staleStatus(failure: UpstreamError): CacheStatus {
  return failure.isLocal
    ? cacheStatus.staleHit()
    : cacheStatus.staleAfterFailure(failure.status);
}

/** Forbidden by the configuration: 404, so that engines try the next registry immediately. */
export function policyRefusal(wanted: Wanted): Refusal {
  return new Refusal(
    new RegistryError(UNKNOWN[wanted], {
      detail: "not allowed by the configuration of this mirror",
    }),
    cacheStatus.refused(),
    "denied",
  );
}

/** Offline and not in the cache: 404, because dockerd waits 50 s on a blob's 5xx. */
export function offlineRefusal(wanted: Wanted): Refusal {
  return new Refusal(
    new RegistryError(UNKNOWN[wanted], { detail: "offline" }),
    cacheStatus.refused(),
    "offline",
  );
}

/** A remembered absence, or a remembered refusal as {@link judgeUpstreamFailure} reports it. */
export function negativeRefusal(
  wanted: Wanted,
  negative: "absent" | "refused" = "absent",
): Refusal {
  return new Refusal(
    new RegistryError(negative === "absent" ? UNKNOWN[wanted] : "NAME_UNKNOWN"),
    cacheStatus.negative(),
    negative === "absent" ? "absent" : "denied",
  );
}

/** Maps any error thrown in the mirror to the client's answer. */
export function toRefusal(
  error: unknown,
  context: { readonly wanted: Wanted; readonly hasCredentials: boolean },
): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof RegistryError) {
    return new Refusal(error, cacheStatus.failed(undefined));
  }
  if (error instanceof UpstreamError) {
    return new Refusal(
      judgeUpstreamFailure(error, context).error,
      error.isLocal ? cacheStatus.refused() : cacheStatus.failed(error.status),
      absenceOf(error),
    );
  }
  return new Refusal(
    new RegistryError("UNKNOWN", { cause: error }),
    cacheStatus.failed(undefined),
  );
}
