import { LRUCache } from "lru-cache";
import type { UpstreamCredential } from "../../config/config.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { type Budget, isHalfUsed, isSpared, readBudget } from "./budget.ts";
import type { UpstreamRequestKind } from "../../wire/observer.ts";
import { createCredentialSource, credentialNames } from "./credentials.ts";
import type { CredentialSource, Login } from "./login.ts";

/** Kinds of requests that rest separately: a pull quota concerns manifests; blobs and lists continue. */
export type Lane = Exclude<UpstreamRequestKind, "token">;

/** A 429 for a manifest means the pull limit; for other kinds, one resource says nothing about the next. */
const MAX_THROTTLED: Readonly<Record<Lane, number>> = {
  manifest: 1,
  blob: 3,
  tags: 3,
  referrers: 3,
};
const LANES = Object.keys(MAX_THROTTLED) as readonly Lane[];

/** Refused credentials are avoided for this long if others exist: registries lock accounts. */
const REFUSED_MS = 300_000;
/** Addresses and accounts for which a registry counts the requests of one credential. */
const MAX_SOURCES = 8;
const MAX_SOURCE_LENGTH = 128;
/** The name of requests without credentials in metrics and logs. */
const ANONYMOUS = "anonymous";

/** The state of a credential for the operator. */
export interface CredentialState {
  readonly name: string;
  /** Undefined if the upstream stated none, or too long ago. */
  readonly budget:
    | {
        readonly limit: number | undefined;
        readonly remaining: number;
        /** The address or account that the upstream counts requests for. */
        readonly source: string | undefined;
        /** Epoch time at which the count expires. */
        readonly resetsAtMs: number;
      }
    | undefined;
  /** The longest time for which requests of a kind, mostly manifests, are not sent. */
  readonly restsForMs: number;
  /** The upstream refused the credential recently. */
  readonly isRefused: boolean;
}

interface Counted extends Budget {
  readonly source: string | undefined;
  readonly forgottenAtMs: number;
}

class LaneRest {
  /** By the monotonic clock. */
  untilMs = 0;
  /** Resources answered 429 since the last other answer; fewer than {@link MAX_THROTTLED}. */
  readonly throttled = new Set<string>();
}

/** One account at one endpoint: its login, its remaining budget and its rests. */
export class PoolMember {
  readonly name: string;
  readonly #source: CredentialSource | undefined;
  readonly #clock: Clock;
  readonly #lanes: Readonly<Record<Lane, LaneRest>>;
  #refusedUntilMs = 0;
  #pulls = 0;
  readonly #counts = new LRUCache<string, Counted>({ max: MAX_SOURCES });

  /** @param source undefined: anonymous */
  constructor(
    name: string,
    source: CredentialSource | undefined,
    clock: Clock,
  ) {
    this.name = name;
    this.#source = source;
    this.#clock = clock;
    this.#lanes = {
      manifest: new LaneRest(),
      blob: new LaneRest(),
      tags: new LaneRest(),
      referrers: new LaneRest(),
    };
  }

  get isAnonymous(): boolean {
    return this.#source === undefined;
  }

  /** @throws CredentialError if the login cannot be read */
  async login(): Promise<Login | undefined> {
    return this.#source?.read();
  }

  /** Returns a login that replaced the refused one; undefined if none has. */
  async newerLogin(refused: Login): Promise<Login | undefined> {
    return this.#source?.readAgain(refused);
  }

  /**
   * Notes a 429 for a resource and its pause. The account rests if the resource is a manifest, or after
   * three different resources of the kind in a row.
   */
  throttle(lane: Lane, resource: string, durationMs: number): void {
    const entry = this.#lanes[lane];
    entry.throttled.add(resource);
    if (entry.throttled.size < MAX_THROTTLED[lane]) return;
    entry.throttled.clear();
    entry.untilMs = this.#clock.monotonicMs() + durationMs;
  }

  /** Notes an answer other than 429. */
  noteAnswer(lane: Lane): void {
    this.#lanes[lane].throttled.clear();
  }

  restMs(lane: Lane): number {
    return Math.max(0, this.#lanes[lane].untilMs - this.#clock.monotonicMs());
  }

  refuse(): void {
    this.#refusedUntilMs = this.#clock.monotonicMs() + REFUSED_MS;
  }

  get isRefused(): boolean {
    return this.#clock.monotonicMs() < this.#refusedUntilMs;
  }

  /** Reads the budget from an answer to a request of this account. */
  observe(header: (name: string) => string | undefined): void {
    const budget = readBudget(header, this.#clock.nowMs());
    if (budget === undefined) return;
    const source = printable(header("docker-ratelimit-source"));
    this.#counts.set(source ?? "", {
      ...budget,
      source,
      forgottenAtMs: this.#clock.monotonicMs() + budget.windowMs,
    });
  }

  /**
   * Counts a GET of a manifest whose answer is outstanding.
   *
   * @returns a function to call once the answer has been observed
   */
  beginPull(): () => void {
    this.#pulls += 1;
    return () => {
      this.#pulls -= 1;
    };
  }

  /** The budget less the pulls whose answers are outstanding. */
  get budgetLeft(): Budget | undefined {
    const { budget } = this;
    if (budget === undefined) return undefined;
    const remaining = Math.max(0, budget.remaining - this.#pulls);
    return { ...budget, remaining };
  }

  /** The budget of the source with the least left, since any source may be counted next. */
  get budget(): Counted | undefined {
    const nowMs = this.#clock.monotonicMs();
    let lowest: Counted | undefined;
    for (const counted of this.#counts.values()) {
      if (counted.forgottenAtMs <= nowMs) continue;
      if (lowest === undefined || counted.remaining < lowest.remaining) {
        lowest = counted;
      }
    }
    return lowest;
  }

  get state(): CredentialState {
    const { budget } = this;
    return {
      name: this.name,
      budget: budget && {
        limit: budget.limit,
        remaining: budget.remaining,
        source: budget.source,
        resetsAtMs:
          this.#clock.nowMs() +
          budget.forgottenAtMs -
          this.#clock.monotonicMs(),
      },
      restsForMs: Math.max(...LANES.map((lane) => this.restMs(lane))),
      isRefused: this.isRefused,
    };
  }
}

/** The accounts of an endpoint; chooses the next one. */
export class CredentialPool {
  readonly #members: readonly PoolMember[];

  constructor(options: {
    readonly upstream: string;
    readonly endpoint: URL;
    readonly credentials: readonly UpstreamCredential[];
    readonly clock: Clock;
  }) {
    const { credentials, clock } = options;
    const names = credentialNames(credentials);
    const members = credentials.map((credential, index) => {
      const name = names[index] ?? "";
      const source = createCredentialSource(credential, { ...options, name });
      return new PoolMember(name, source, clock);
    });
    this.#members =
      members.length > 0
        ? members
        : [new PoolMember(ANONYMOUS, undefined, clock)];
  }

  /**
   * Returns the account with the most remaining quota that does not rest; an account without a known
   * limit goes first, a refused one last.
   */
  choose(
    lane: Lane,
    tried: ReadonlySet<PoolMember> = new Set(),
  ): PoolMember | undefined {
    let best: PoolMember | undefined;
    for (const member of this.#members) {
      if (tried.has(member) || member.restMs(lane) > 0) continue;
      if (best === undefined || isBetter(member, best)) best = member;
    }
    return best;
  }

  /** Time until an account may be used; 0 if one may be now. */
  restMs(lane: Lane): number {
    return Math.min(...this.#members.map((member) => member.restMs(lane)));
  }

  /** True if the budget of every account is nearly used up. */
  get isSpared(): boolean {
    return this.#members
      .filter((member) => member.restMs("manifest") === 0)
      .every(({ budgetLeft: left }) => left !== undefined && isSpared(left));
  }

  /** True if every account has less than half of its budget left. */
  get isHalfUsed(): boolean {
    return this.#members
      .filter((member) => member.restMs("manifest") === 0)
      .every(({ budgetLeft: left }) => left !== undefined && isHalfUsed(left));
  }

  get states(): readonly CredentialState[] {
    return this.#members.map((member) => member.state);
  }
}

function isBetter(one: PoolMember, other: PoolMember): boolean {
  if (one.isRefused !== other.isRefused) return other.isRefused;
  const left = ({ budgetLeft }: PoolMember): number =>
    budgetLeft?.remaining ?? Infinity;
  return left(one) > left(other);
}

/** Returns an address or an id that can be shown to the operator; undefined for other text. */
function printable(text: string | undefined): string | undefined {
  return text !== undefined && /^[\x21-\x7e]+$/.test(text)
    ? text.slice(0, MAX_SOURCE_LENGTH)
    : undefined;
}
