import type { Clock } from "../telemetry/clock.ts";
import { Breaker, type BreakerState } from "./breaker.ts";
import type { UpstreamError } from "../wire/errors.ts";
import { isGivenUp, severityOf } from "../wire/faults.ts";
import type { UpstreamRequestKind } from "../wire/observer.ts";
import { type ResourceRest, ResourceRests } from "./resource-rests.ts";

/** Manifests and blobs are judged together; a list that fails says nothing of them. */
type Group = "content" | "tags" | "referrers";

export interface HealthOptions {
  /** Of the endpoint. */
  readonly origin: string;
  readonly clock: Clock;
  readonly onChange: (isUp: boolean) => void;
}

/** Why an endpoint is not asked for something now. */
export interface HealthRefusal extends ResourceRest {
  /** Only this one resource rests. */
  readonly isOfResource: boolean;
}

/** The right to ask for one resource, and the duty to report how it went; only the first report counts. */
export interface Permit {
  /** It finds out whether an open breaker may close. */
  readonly isProbe: boolean;
  /** The blob, list or manifest; undefined: nothing in particular. */
  readonly resource: string | undefined;
  /** What came up since the permit was given, while the request waited for a slot. */
  readonly refusal: HealthRefusal | undefined;
  succeed(): void;
  /** @param isAnswer the endpoint, or where it redirected to, gave this answer for the resource */
  fail(error: UpstreamError, isAnswer?: boolean): void;
  /** Nothing was learnt: ended by ourselves, or failed elsewhere. */
  abandon(): void;
}

/**
 * Whether an endpoint is worth asking. A connection that can't be made closes it for everything;
 * other failures only once three different resources of a kind failed in a row. What it answers
 * about one resource is remembered for that resource alone.
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

  /** Manifests and blobs are not asked for. */
  get isOpen(): boolean {
    return this.isOpenFor("manifest");
  }

  get state(): BreakerState {
    const states = this.#breakers("manifest").map(({ state }) => state);
    if (states.includes("half-open")) return "half-open";
    return states.includes("open") ? "open" : "closed";
  }

  /** Until it may be probed; 0 when it may be now, or is up. */
  get retryAfterMs(): number {
    return retryAfterOf(this.#breakers("manifest"));
  }

  isOpenFor(kind: UpstreamRequestKind): boolean {
    return this.#breakers(kind).some(({ isOpen }) => isOpen);
  }

  /**
   * @param resource undefined: a probe that asks for nothing in particular
   * @param isHead what is answered to a HEAD is remembered for HEADs: its GET may work all the same
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
      // Some registries answer 5xx to every HEAD: the GET that follows says more.
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
        // An answer, even a bad one, came over a connection that stands.
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
 * Whether an error says something of the resource that was asked for, rather than of the connection,
 * of a token realm or of a whole account. The endpoint's 429 on a manifest is of the account.
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
