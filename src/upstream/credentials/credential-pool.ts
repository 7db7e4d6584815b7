import { LRUCache } from "lru-cache";
import type { UpstreamCredential } from "../../config/config.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { type Budget, isHalfUsed, isSpared, readBudget } from "./budget.ts";
import type { UpstreamRequestKind } from "../../wire/observer.ts";
import { createCredentialSource, credentialNames } from "./credentials.ts";
import type { CredentialSource, Login } from "./login.ts";

/** A quota is for manifests; blobs and lists continue. */
export type Lane = Exclude<UpstreamRequestKind, "token">;

/** A 429 on a manifest means the pull limit; of anything else one resource says nothing of the next. */
const MAX_THROTTLED: Readonly<Record<Lane, number>> = {
  manifest: 1,
  blob: 3,
  tags: 3,
  referrers: 3,
};
const LANES = Object.keys(MAX_THROTTLED) as readonly Lane[];

/** Wrong credentials are not tried again for so long where there are others: accounts get locked. */
const REFUSED_MS = 300_000;
/** Addresses and accounts that one registry counts a credential's requests for. */
const MAX_SOURCES = 8;
const MAX_SOURCE_LENGTH = 128;
/** What metrics and logs call those who send no credentials. */
const ANONYMOUS = "anonymous";

/** A credential as an operator is shown it. */
export interface CredentialState {
  readonly name: string;
  /** Undefined where the upstream tells none, or told it too long ago. */
  readonly budget:
    | {
        readonly limit: number | undefined;
        readonly remaining: number;
        /** Whom the upstream counts, as it says itself: an address or an account. */
        readonly source: string | undefined;
        /** Epoch; when what was counted is forgotten. */
        readonly resetsAtMs: number;
      }
    | undefined;
  /** Requests of a kind, mostly those for manifests, are held back for so long. */
  readonly restsForMs: number;
  /** The upstream refused it lately. */
  readonly isRefused: boolean;
}

interface Counted extends Budget {
  readonly source: string | undefined;
  readonly forgottenAtMs: number;
}

class LaneRest {
  /** By the monotonic clock. */
  untilMs = 0;
  /** Resources that were answered 429 since the last other answer; fewer than {@link MAX_THROTTLED}. */
  readonly throttled = new Set<string>();
}

/** One account at one endpoint: its login, what is left of its budget, until when it rests. */
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

  /** @throws CredentialError where it can't be had */
  async login(): Promise<Login | undefined> {
    return this.#source?.read();
  }

  /** The login that is in force since the upstream refused that one; undefined where there is no newer. */
  async newerLogin(refused: Login): Promise<Login | undefined> {
    return this.#source?.readAgain(refused);
  }

  /**
   * A 429 for a resource asked to be left alone for so long. The account rests if that was a manifest,
   * or after three different resources of the kind in a row.
   */
  throttle(lane: Lane, resource: string, durationMs: number): void {
    const entry = this.#lanes[lane];
    entry.throttled.add(resource);
    if (entry.throttled.size < MAX_THROTTLED[lane]) return;
    entry.throttled.clear();
    entry.untilMs = this.#clock.monotonicMs() + durationMs;
  }

  /** An answer other than 429 came. */
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

  /** Reads what an answer to a request of this account's says of its budget. */
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
   * A GET of a manifest is on its way and will be counted.
   *
   * @returns called once its answer has been observed
   */
  beginPull(): () => void {
    this.#pulls += 1;
    return () => {
      this.#pulls -= 1;
    };
  }

  /** The budget without the pulls whose answers are still to come. */
  get budgetLeft(): Budget | undefined {
    const { budget } = this;
    if (budget === undefined) return undefined;
    const remaining = Math.max(0, budget.remaining - this.#pulls);
    return { ...budget, remaining };
  }

  /** Of several sources the one with least left: any may be counted next. */
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

/** The accounts that an endpoint is asked with, and which is next. */
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
   * The one with most left of those that do not rest; one without a known limit before all. One that
   * was refused only where there is no other.
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

  /** Until one of them may be asked with; 0 when one may now. */
  restMs(lane: Lane): number {
    return Math.min(...this.#members.map((member) => member.restMs(lane)));
  }

  /** Everyone's budget is nearly used up. */
  get isSpared(): boolean {
    return this.#members
      .filter((member) => member.restMs("manifest") === 0)
      .every(({ budgetLeft: left }) => left !== undefined && isSpared(left));
  }

  /** Less than half is left of every account's budget. */
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

/** An address or an id, as it goes to an operator; anything else is none. */
function printable(text: string | undefined): string | undefined {
  return text !== undefined && /^[\x21-\x7e]+$/.test(text)
    ? text.slice(0, MAX_SOURCE_LENGTH)
    : undefined;
}
