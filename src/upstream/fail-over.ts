import { isOwnFault } from "./credentials/login.ts";
import type { Endpoint } from "./endpoint.ts";
import type { EndpointRequest } from "./endpoint-request.ts";
import type { Permit } from "./endpoint-health.ts";
import { UpstreamError, type UpstreamErrorKind } from "../wire/errors.ts";
import { abortFault } from "../wire/faults.ts";
import { probe, probeBehind } from "./probing.ts";
import type { UpstreamObserver } from "../wire/observer.ts";

export interface FailOverOptions {
  readonly upstream: string;
  /** In the order in which they are asked. */
  readonly endpoints: readonly Endpoint[];
  readonly observer: UpstreamObserver;
}

export interface FailOverRequest {
  readonly kind: EndpointRequest["kind"];
  /** The blob, list or manifest, by a name that no other shares. */
  readonly resource: string;
  readonly isHead?: boolean;
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
  "overloaded",
  "bad-response",
  "interrupted",
  "digest-mismatch",
]);

/** How one endpoint is asked. */
export interface Ask<T> {
  /** @param signal ends it: the caller's, or a probe's own */
  readonly act: (
    endpoint: Endpoint,
    permit: Permit,
    signal: AbortSignal,
  ) => Promise<T>;
  /** Ends an answer that came too late for its caller. */
  readonly discard: (answer: T) => void;
}

/**
 * Asks one endpoint after the other until one gives an answer, be it a refusal; those that rest
 * are passed over without a dial. One whose rest is over is probed behind the answer of the next
 * where that is up, else the caller waits for it for a moment.
 *
 * @throws UpstreamError of the answer, or of the most telling failure where none answered
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
      failure = moreTelling(failure, permit);
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
      probeBehind(probing);
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
      if (!PASSED_OVER.has(error.kind)) throw error;
      failure = moreTelling(failure, error);
    }
  }
  throw (
    failure ??
    new UpstreamError("breaker-open", "there is no endpoint", {
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

/** It was asked, and has not answered in time; when it has, the next request finds it up. */
function stillResting(upstream: string, endpoint: Endpoint): UpstreamError {
  return new UpstreamError("breaker-open", `${endpoint.url}: rests`, {
    upstream,
    origin: endpoint.origin,
    retryAfterMs: Math.max(endpoint.status.retryAfterMs, 1_000),
  });
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
