import { RegistryError, type RegistryErrorCode } from "../oci/errors.ts";
import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import { UpstreamError } from "../wire/errors.ts";

/** containerd asks again at once and c/image waits what it is told: longer helps nobody. */
const MAX_CLIENT_RETRY_AFTER_MS = 10_000;

/** What is told where the upstream said nothing of when to come back. */
const DEFAULT_RETRY_AFTER_MS = 5_000;

/** What was asked for decides which of the spec's codes says that it is not there. */
export type Wanted = "manifest" | "blob" | "list";

const UNKNOWN: Readonly<Record<Wanted, RegistryErrorCode>> = {
  manifest: "MANIFEST_UNKNOWN",
  blob: "BLOB_UNKNOWN",
  list: "NAME_UNKNOWN",
};

/**
 * - `never`: the upstream has spoken
 * - `when-complete`: only where the pull can be finished from the cache
 * - `always`: the blobs can still be fetched
 */
export type StaleOffer = "never" | "when-complete" | "always";

export interface Verdict {
  readonly error: RegistryError;
  readonly stale: StaleOffer;
}

/**
 * What an upstream's failure means for the client; the one place where it is decided.
 * No word of the upstream's is in it, and its challenge is never relayed.
 */
export function judgeUpstreamFailure(
  failure: UpstreamError,
  context: { readonly wanted: Wanted; readonly hasCredentials: boolean },
): Verdict {
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
      // Registries answer so for repositories that do not exist; a relayed 401 would make engines
      // offer their users' credentials to the mirror.
      return context.hasCredentials
        ? verdict("always", "DENIED", {
            detail: failure.isLocal
              ? "the mirror's own credentials for the upstream can't be read"
              : "the upstream refused the mirror's credentials",
          })
        : verdict("never", "NAME_UNKNOWN");
    case "rate-limited":
      return verdict("always", "TOOMANYREQUESTS", {
        detail: "the upstream's rate limit is reached",
        retryAfterMs: Math.min(
          MAX_CLIENT_RETRY_AFTER_MS,
          failure.retryAfterMs ?? DEFAULT_RETRY_AFTER_MS,
        ),
      });
    case "breaker-open":
    case "overloaded":
      return verdict("when-complete", "UNAVAILABLE", {
        status: 503,
        detail:
          failure.kind === "overloaded"
            ? "too many requests wait for the upstream"
            : "the upstream is down",
        retryAfterMs: Math.min(
          MAX_CLIENT_RETRY_AFTER_MS,
          failure.retryAfterMs ?? DEFAULT_RETRY_AFTER_MS,
        ),
      });
    case "timeout":
      return verdict("when-complete", "UNAVAILABLE", {
        status: 504,
        detail: "the upstream did not answer in time",
      });
    case "too-large":
      return verdict("when-complete", "MANIFEST_INVALID", {
        detail: "the upstream's answer is too large",
      });
    case "digest-mismatch":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream's bytes are not those of the digest",
      });
    case "bad-response":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream's answer is not a registry's",
      });
    case "unreachable":
    case "interrupted":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream can't be reached",
      });
    case "unavailable":
      return verdict("when-complete", "UNAVAILABLE", {
        detail: "the upstream failed",
      });
    default:
      return failure.kind satisfies never;
  }
}

/** An answer that is no content: the error, and what the cache did to come to it. */
export class Refusal extends Error {
  readonly error: RegistryError;
  readonly status: CacheStatus;

  constructor(error: RegistryError, status: CacheStatus) {
    super(error.message, { cause: error });
    this.name = "Refusal";
    this.error = error;
    this.status = status;
  }
}

/** The status of a stale answer that is given in the place of a failure. */
export function staleStatus(failure: UpstreamError): CacheStatus {
  return failure.isLocal
    ? cacheStatus.staleHit()
    : cacheStatus.staleAfterFailure(failure.status);
}

/** The configuration does not let it through: 404, so that engines go elsewhere at once. */
export function policyRefusal(wanted: Wanted): Refusal {
  return new Refusal(
    new RegistryError(UNKNOWN[wanted], {
      detail: "not allowed by the configuration of this mirror",
    }),
    cacheStatus.refused(),
  );
}

/** Offline and not in the cache: 404, because dockerd waits 50 s on a blob's 5xx. */
export function offlineRefusal(wanted: Wanted): Refusal {
  return new Refusal(
    new RegistryError(UNKNOWN[wanted], { detail: "offline" }),
    cacheStatus.refused(),
  );
}

/** A remembered "not there", or "not for you" as {@link judgeUpstreamFailure} tells it. */
export function negativeRefusal(
  wanted: Wanted,
  negative: "absent" | "refused" = "absent",
): Refusal {
  return new Refusal(
    new RegistryError(negative === "absent" ? UNKNOWN[wanted] : "NAME_UNKNOWN"),
    cacheStatus.negative(),
  );
}

/** Whatever was thrown below, as the client is told it. */
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
    );
  }
  return new Refusal(
    new RegistryError("UNKNOWN", { cause: error }),
    cacheStatus.failed(undefined),
  );
}
