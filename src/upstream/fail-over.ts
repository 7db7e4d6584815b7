import type { Permit } from "./breaker.ts";
import type { Endpoint } from "./endpoint.ts";
import { UpstreamError, type UpstreamErrorKind } from "./errors.ts";
import { abortFault } from "./faults.ts";
import type { UpstreamObserver, UpstreamRequestKind } from "./observer.ts";

export interface FailOverOptions {
  readonly upstream: string;
  /** In the order in which they are asked. */
  readonly endpoints: readonly Endpoint[];
  readonly observer: UpstreamObserver;
}

export interface FailOverRequest {
  readonly kind: UpstreamRequestKind;
  /** The caller's: what it ends is nobody's fault. */
  readonly signal: AbortSignal;
  /** Endpoints (by their URL) that are asked last. */
  readonly avoid?: ReadonlySet<string> | undefined;
}

/** Whether the next endpoint may know better. A refusal or a 404 is an answer. */
const PASSED_OVER: ReadonlySet<UpstreamErrorKind> = new Set([
  "unreachable",
  "timeout",
  "rate-limited",
  "unavailable",
  "breaker-open",
  "bad-response",
  "interrupted",
]);

/**
 * Asks one endpoint after the other until one gives an answer, be it a refusal; those that rest
 * are passed over without a dial.
 *
 * @param act asks one endpoint, with its permit; what it throws is told to the breaker
 * @throws UpstreamError of the answer, or of the most telling failure where none answered
 */
export async function askInOrder<T>(
  { upstream, endpoints, observer }: FailOverOptions,
  { kind, signal, avoid }: FailOverRequest,
  act: (endpoint: Endpoint, permit: Permit) => Promise<T>,
): Promise<T> {
  let failure: UpstreamError | undefined;
  for (const endpoint of inOrder(endpoints, avoid)) {
    if (signal.aborted) {
      throw abortFault(signal, { upstream, origin: endpoint.origin });
    }
    const permit = endpoint.enter(kind);
    if (permit instanceof UpstreamError) {
      failure = moreTelling(failure, permit);
      continue;
    }
    try {
      const result = await act(endpoint, permit);
      permit.succeed();
      return result;
    } catch (error) {
      if (!(error instanceof UpstreamError) || signal.aborted) {
        permit.abandon();
        throw error;
      }
      endpoint.settle(permit, kind, error);
      if (error.kind !== "not-found") {
        observer.onFault(error.kind, error.message);
      }
      if (!PASSED_OVER.has(error.kind)) throw error;
      failure = moreTelling(failure, error);
    }
  }
  throw (
    failure ??
    new UpstreamError("breaker-open", "there is no endpoint", { upstream })
  );
}

function inOrder(
  endpoints: readonly Endpoint[],
  avoid: ReadonlySet<string> | undefined,
): readonly Endpoint[] {
  if (avoid === undefined || avoid.size === 0) return endpoints;
  const isAvoided = ({ url }: Endpoint): boolean => avoid.has(url);
  return [
    ...endpoints.filter((endpoint) => !isAvoided(endpoint)),
    ...endpoints.filter(isAvoided),
  ];
}

/** A quota first, since blobs can still be fetched; then what was seen, over what merely rests. */
function moreTelling(
  one: UpstreamError | undefined,
  other: UpstreamError,
): UpstreamError {
  if (one === undefined) return other;
  if (one.kind === "rate-limited") return one;
  if (other.kind !== "breaker-open") return other;
  if (one.kind !== "breaker-open") return one;
  return (other.retryAfterMs ?? 0) < (one.retryAfterMs ?? 0) ? other : one;
}
