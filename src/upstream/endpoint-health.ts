import type { Clock } from "../telemetry/clock.ts";
import { Breaker, type BreakerState } from "./breaker.ts";
import type { UpstreamError } from "../wire/errors.ts";
import { isGivenUp, severityOf } from "../wire/faults.ts";
import type { UpstreamRequestKind } from "../wire/observer.ts";
import { type ResourceRest, ResourceRests } from "./resource-rests.ts";

/** Manifests and blobs share a breaker; a list that fails says nothing about them. */
type Group = "content" | "tags" | "referrers";

export interface HealthOptions {
  /** The origin of the endpoint. */
  readonly origin: string;
  readonly clock: Clock;
  readonly onChange: (isUp: boolean) => void;
}

/** The reason why an endpoint is not asked now. */
export interface HealthRefusal extends ResourceRest {
  /** True: only the resource rests, not the endpoint. */
  readonly isOfResource: boolean;
}

/** Allows one request for a resource, whose result must be reported; only the first report counts. */
export interface Permit {
  /** True: the result decides whether an open breaker closes. */
  readonly isProbe: boolean;
  /** The blob, list or manifest; undefined: none in particular. */
  readonly resource: string | undefined;
  /** A refusal that arose after the permit was given, while the request waited for a slot. */
  readonly refusal: HealthRefusal | undefined;
  succeed(): void;
  /** @param isAnswer the error is an answer about the resource, by the endpoint or a redirect target */
  fail(error: UpstreamError, isAnswer?: boolean): void;
  /** Reports no result: the mirror ended the request, or it failed elsewhere. */
  abandon(): void;
}

/**
 * Decides whether an endpoint is worth asking. A failed connection stops all requests; other failures
 * do so after three different resources of a kind failed in a row. An answer about one resource
 * affects that resource only.
 */
export class EndpointHealth {
  readonly #origin: string;
  readonly #onChange: (isUp: boolean) => void;
  readonly #connection: Breaker;
  readonly #groups: Readonly<Record<Group, Breaker>>;
  readonly #rests: ResourceRests;
  #wasUp = true;

  constructor({ origin, clock, onChange }: HealthOptions) {
    this.#origin = origin;
    this.#onChange = onChange;
    const notify = (): void => this.#notify();
    this.#connection = new Breaker(clock, notify);
    this.#groups = {
      content: new Breaker(clock, notify),
      tags: new Breaker(clock),
      referrers: new Breaker(clock),
    };
    this.#rests = new ResourceRests(clock);
  }

  /** True if manifests and blobs are not requested. */
  get isOpen(): boolean {
    return this.isOpenFor("manifest");
  }

  get state(): BreakerState {
    const states = this.#breakers("manifest").map(({ state }) => state);
    if (states.includes("half-open")) return "half-open";
    return states.includes("open") ? "open" : "closed";
  }

  /** Time until a probe is allowed; 0 if one is allowed now or the endpoint is up. */
  get retryAfterMs(): number {
    return retryAfterOf(this.#breakers("manifest"));
  }

  isOpenFor(kind: UpstreamRequestKind): boolean {
    return this.#breakers(kind).some(({ isOpen }) => isOpen);
  }

  /**
   * Returns a permit, or the reason why no request is allowed now.
   *
   * @param resource undefined: a probe without a particular resource
   * @param isHead failures of a HEAD count for HEADs only: the GET may still work
   */
  enter(
    kind: UpstreamRequestKind,
    resource: string | undefined,
    isHead = false,
  ): Permit | HealthRefusal {
    const breakers = this.#breakers(kind);
    const restKey = isHead ? `HEAD ${resource}` : resource;
    const resting = this.#restOf(restKey);
    if (resting !== undefined) return resting;
    if (!breakers.every(({ isPassable }) => isPassable)) {
      return {
        retryAfterMs: retryAfterOf(breakers),
        isThrottled: false,
        isOfResource: false,
      };
    }
    return this.#permit(breakers, resource, restKey, isHead);
  }

  #permit(
    [connectionBreaker, groupBreaker]: readonly [Breaker, Breaker],
    resource: string | undefined,
    restKey: string | undefined,
    isHead: boolean,
  ): Permit {
    const connection = connectionBreaker.enter();
    const group = groupBreaker.enter();
    const isProbe = connection?.isProbe === true || group?.isProbe === true;
    let isReported = false;
    const report = (act: () => void): void => {
      if (isReported) return;
      isReported = true;
      act();
    };
    const refusal = (): HealthRefusal | undefined => {
      const breakers = [connectionBreaker, groupBreaker] as const;
      if (isProbe) return undefined;
      if (!breakers.some(({ isOpen }) => isOpen)) return this.#restOf(restKey);
      const retryAfterMs = retryAfterOf(breakers);
      return { retryAfterMs, isThrottled: false, isOfResource: false };
    };
    const abandon = (): void => {
      connection?.abandon();
      group?.abandon();
    };
    const fail = (error: UpstreamError, isAnswer: boolean): void => {
      const isOwn = error.origin === this.#origin;
      const { retryAfterMs } = error;
      const severity = severityOf(error);
      if (restKey !== undefined && isAboutResource(error, isOwn, isAnswer)) {
        this.#rests.noteFailure(restKey, error);
      }
      // Some registries answer 5xx to every HEAD; the GET that follows is more reliable.
      const isHeadAlone =
        isHead && error.status !== undefined && retryAfterMs === undefined;
      if (!isOwn || error.isLocal || isGivenUp(error)) {
        abandon();
      } else if (isHeadAlone && severity === "mild") {
        connection?.succeed();
        group?.abandon();
      } else if (severity === undefined) {
        connection?.succeed();
        group?.succeed();
      } else if (severity === "severe") {
        connection?.fail({ severity });
        group?.abandon();
      } else {
        // An answer, even a bad one, shows that the connection works.
        if (error.status !== undefined) connection?.succeed();
        else if (connection?.isProbe === true) connection.fail({ severity });
        else connection?.abandon();
        group?.fail({
          severity,
          retryAfterMs,
          ...(resource === undefined ? {} : { resource }),
        });
      }
    };
    return {
      isProbe,
      resource,
      get refusal() {
        return refusal();
      },
      succeed: () =>
        report(() => {
          if (restKey !== undefined) this.#rests.noteSuccess(restKey);
          connection?.succeed();
          group?.succeed();
        }),
      fail: (error, isAnswer = false) => report(() => fail(error, isAnswer)),
      abandon: () => report(abandon),
    };
  }

  #restOf(restKey: string | undefined): HealthRefusal | undefined {
    const rest = restKey === undefined ? undefined : this.#rests.get(restKey);
    return rest && { ...rest, isOfResource: true };
  }

  #breakers(kind: UpstreamRequestKind): readonly [Breaker, Breaker] {
    const group = kind === "tags" || kind === "referrers" ? kind : "content";
    return [this.#connection, this.#groups[group]];
  }

  #notify(): void {
    const isUp = !this.isOpen;
    if (isUp === this.#wasUp) return;
    this.#wasUp = isUp;
    this.#onChange(isUp);
  }
}

/**
 * True if an error concerns the requested resource rather than the connection, a token realm or a whole
 * account. The endpoint's 429 on a manifest concerns the account.
 */
function isAboutResource(
  error: UpstreamError,
  isOwn: boolean,
  isAnswer: boolean,
): boolean {
  if (error.isLocal || isGivenUp(error)) return false;
  if (error.kind === "rate-limited") return isAnswer;
  return severityOf(error) === "mild" && (isOwn || isAnswer);
}

function retryAfterOf(breakers: readonly Breaker[]): number {
  return Math.max(...breakers.map(({ retryAfterMs }) => retryAfterMs));
}
