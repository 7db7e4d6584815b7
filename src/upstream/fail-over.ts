import { isOwnFault } from "./credentials/login.ts";
import type { Endpoint } from "./endpoint.ts";
import type { EndpointRequest } from "./endpoint-request.ts";
import type { Permit } from "./endpoint-health.ts";
import { UpstreamError, type UpstreamErrorKind } from "../wire/errors.ts";
import { abortFault } from "../wire/faults.ts";
import { probe, probeInBackground } from "./probing.ts";
import type { UpstreamObserver } from "../wire/observer.ts";

export interface FailOverOptions {
  readonly upstream: string;
  /** In the order in which they are tried. */
  readonly endpoints: readonly Endpoint[];
  readonly observer: UpstreamObserver;
}

export interface FailOverRequest {
  readonly kind: EndpointRequest["kind"];
  /** A unique name of the blob, list or manifest. */
  readonly resource: string;
  readonly isHead?: boolean;
  /** The caller's signal; a request that it ends is not a failure. */
  readonly signal: AbortSignal;
  /** URLs of endpoints that are tried last. */
  readonly avoid?: ReadonlySet<string> | undefined;
}

/** Failures after which the next endpoint is tried. A refusal or a 404 is an answer. */
const TRY_NEXT: ReadonlySet<UpstreamErrorKind> = new Set([
  "unreachable",
  "timeout",
  "rate-limited",
  "unavailable",
  "breaker-open",
  "overloaded",
  "bad-response",
  "interrupted",
  "digest-mismatch",
]);

/** A request to one endpoint. */
export interface Ask<T> {
  /** @param signal ends the request: the caller's, or that of a probe */
  readonly act: (
    endpoint: Endpoint,
    permit: Permit,
    signal: AbortSignal,
  ) => Promise<T>;
  /** Ends an answer that arrived after its caller left. */
  readonly discard: (answer: T) => void;
}

/**
 * Tries the endpoints in order until one answers; a refusal is an answer. Endpoints that rest are
 * skipped. If the rest of an endpoint is over and a later endpoint is up, it is probed in the
 * background; otherwise the caller waits briefly for the probe.
 *
 * @throws UpstreamError of the answer, or the most specific failure if no endpoint answered
 */
export async function askInOrder<T>(
  options: FailOverOptions,
  { kind, resource, isHead, signal, avoid }: FailOverRequest,
  ask: Ask<T>,
): Promise<T> {
  const { upstream } = options;
  const endpoints = inOrder(options.endpoints, avoid);
  let failure: UpstreamError | undefined;
  for (const endpoint of endpoints) endpoint.noteUse();
  for (const [at, endpoint] of endpoints.entries()) {
    if (signal.aborted) {
      throw abortFault(signal, { upstream, origin: endpoint.origin });
    }
    const permit = endpoint.enter(kind, resource, isHead);
    if (permit instanceof UpstreamError) {
      failure = moreSpecific(failure, permit);
      continue;
    }
    const probing = {
      act: (own: AbortSignal) =>
        askOne(options, ask, { endpoint, permit, signal: own }),
      discard: ask.discard,
    };
    const isOtherUp = endpoints
      .slice(at + 1)
      .some((other) => other.isReady(kind));
    if (permit.isProbe && isOtherUp) {
      probeInBackground(probing);
      continue;
    }
    try {
      return permit.isProbe
        ? await probe({
            ...probing,
            signal,
            tooLate: () => stillResting(upstream, endpoint),
          })
        : await probing.act(signal);
    } catch (error) {
      if (!(error instanceof UpstreamError) || signal.aborted) throw error;
      if (!TRY_NEXT.has(error.kind)) throw error;
      failure = moreSpecific(failure, error);
    }
  }
  throw (
    failure ??
    new UpstreamError("breaker-open", "no endpoint is configured", {
      upstream,
      isLocal: true,
    })
  );
}

async function askOne<T>(
  { observer }: FailOverOptions,
  { act }: Ask<T>,
  one: {
    readonly endpoint: Endpoint;
    readonly permit: Permit;
    readonly signal: AbortSignal;
  },
): Promise<T> {
  const { endpoint, permit, signal } = one;
  try {
    const result = await act(endpoint, permit, signal);
    permit.succeed();
    return result;
  } catch (error) {
    if (!(error instanceof UpstreamError) || signal.aborted) {
      permit.abandon();
      throw error;
    }
    permit.fail(error);
    if (error.kind !== "not-found") {
      if (!error.isLocal) endpoint.noteError(error);
      if (!isOwnFault(error)) observer.onFault(error.kind, error.message);
    }
    throw error;
  }
}

/** Creates the error of a probe that takes longer than its caller waits; the probe continues. */
function stillResting(upstream: string, endpoint: Endpoint): UpstreamError {
  return new UpstreamError(
    "breaker-open",
    `${endpoint.url}: the endpoint rests; its probe has not answered yet`,
    {
      upstream,
      origin: endpoint.origin,
      retryAfterMs: Math.max(endpoint.status.retryAfterMs, 1_000),
    },
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

/** Prefers a used-up quota, since blobs can still be fetched; then an actual failure over a rest. */
function moreSpecific(
  one: UpstreamError | undefined,
  other: UpstreamError,
): UpstreamError {
  if (one === undefined) return other;
  if (one.kind === "rate-limited") return one;
  if (other.kind !== "breaker-open") return other;
  if (one.kind !== "breaker-open") return one;
  return (other.retryAfterMs ?? 0) < (one.retryAfterMs ?? 0) ? other : one;
}
