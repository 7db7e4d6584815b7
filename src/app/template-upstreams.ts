import type { UpstreamConfig } from "../config/config.ts";
import type { MirroredUpstream } from "../mirror/mirrored-upstream.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { Schedule } from "../telemetry/clock.ts";

/** Registries that have answered. */
const MAX_PLACES = 100;

/** Registries that have not answered yet. A client chooses the names: these are dialled at once at most. */
const MAX_CANDIDATES = 32;

/** A candidate that is idle at such a look is dropped. */
const LOOK_AFTER_MS = 30_000;

/** For a client that names a registry while all candidates are being asked. */
const RETRY_AFTER_MS = 5_000;

/** An upstream with its configuration. */
export interface Member {
  readonly config: UpstreamConfig;
  /** Equal for equal configurations. */
  readonly fingerprint: string;
  readonly mirrored: MirroredUpstream;
}

/**
 * The upstreams that requests made from templates. A name is a candidate until its registry
 * answers, so that invented names push out no registry that is in use; then it has a place, and of
 * the places the one unused longest is reused.
 */
export class TemplateUpstreams {
  /** The one unused longest comes first. */
  readonly #places = new Map<string, Member>();
  readonly #candidates = new Map<string, Member>();
  readonly #looks = new Map<string, () => void>();
  readonly #configOf: (name: string) => UpstreamConfig | undefined;
  readonly #makeMember: (
    config: UpstreamConfig,
    onAnswered: () => void,
  ) => Member;
  readonly #retire: (member: Member) => void;
  readonly #fingerprintOf: (config: UpstreamConfig) => string;
  readonly #isFull: () => boolean;
  readonly #schedule: Schedule;

  /**
   * @param configOf the configuration in force for a name; undefined if no template matches
   * @param makeMember told once or more when the registry has answered
   * @param retire is given what is no longer found here
   * @param isFull so many of those have not ended that no other may be made
   */
  constructor(options: {
    readonly configOf: (name: string) => UpstreamConfig | undefined;
    readonly makeMember: (
      config: UpstreamConfig,
      onAnswered: () => void,
    ) => Member;
    readonly fingerprintOf: (config: UpstreamConfig) => string;
    readonly retire: (member: Member) => void;
    readonly isFull: () => boolean;
    readonly schedule: Schedule;
  }) {
    this.#configOf = options.configOf;
    this.#makeMember = options.makeMember;
    this.#fingerprintOf = options.fingerprintOf;
    this.#retire = options.retire;
    this.#isFull = options.isFull;
    this.#schedule = options.schedule;
  }

  /** Those that have a place. */
  get mirrored(): readonly MirroredUpstream[] {
    return [...this.#places.values()].map(({ mirrored }) => mirrored);
  }

  /** One that exists; for what must not make any. */
  peek(name: string): MirroredUpstream | undefined {
    return (this.#use(name) ?? this.#candidates.get(name))?.mirrored;
  }

  /**
   * The upstream of a name. All requests for a name have the same one, also before it has answered.
   *
   * @throws UpstreamError if too many registries that have not answered are being asked
   */
  find(name: string): MirroredUpstream | undefined {
    const known = this.peek(name);
    if (known !== undefined) return known;
    const config = this.#configOf(name);
    if (config?.template === undefined) return undefined;
    if (this.#isFull()) throw tooMany(name);
    if (this.#candidates.size >= MAX_CANDIDATES) this.#dropIdle(name);
    const member = this.#makeMember(config, () => this.#settle(name, member));
    this.#candidates.set(name, member);
    this.#lookLater(name, member);
    return member.mirrored;
  }

  /** Other templates, or other upstreams, are in force: what they make differently is made again. */
  reload(): void {
    for (const members of [this.#places, this.#candidates]) {
      for (const [name, member] of members) {
        const config = this.#configOf(name);
        const next =
          config?.template === undefined
            ? undefined
            : this.#fingerprintOf(config);
        if (next !== member.fingerprint) this.#drop(members, name, member);
      }
    }
  }

  /** @returns all that are to be closed */
  takeAll(): readonly Member[] {
    for (const cancel of this.#looks.values()) cancel();
    this.#looks.clear();
    const all = [...this.#places.values(), ...this.#candidates.values()];
    this.#places.clear();
    this.#candidates.clear();
    return all;
  }

  #use(name: string): Member | undefined {
    const member = this.#places.get(name);
    if (member === undefined) return undefined;
    this.#places.delete(name);
    this.#places.set(name, member);
    return member;
  }

  #settle(name: string, member: Member): void {
    if (this.#candidates.get(name) !== member) return;
    this.#candidates.delete(name);
    this.#cancelLook(name);
    const [oldest] = this.#places;
    if (oldest !== undefined && this.#places.size >= MAX_PLACES) {
      this.#drop(this.#places, ...oldest);
    }
    this.#places.set(name, member);
  }

  /** @throws UpstreamError if all are being asked */
  #dropIdle(wanted: string): void {
    for (const [name, member] of this.#candidates) {
      if (!member.mirrored.client.isIdle()) continue;
      this.#drop(this.#candidates, name, member);
      return;
    }
    throw tooMany(wanted);
  }

  #drop(members: Map<string, Member>, name: string, member: Member): void {
    members.delete(name);
    if (members === this.#candidates) this.#cancelLook(name);
    this.#retire(member);
  }

  #lookLater(name: string, member: Member): void {
    const cancel = this.#schedule(() => {
      this.#looks.delete(name);
      if (this.#candidates.get(name) !== member) return;
      if (member.mirrored.client.isIdle()) {
        this.#drop(this.#candidates, name, member);
      } else {
        this.#lookLater(name, member);
      }
    }, LOOK_AFTER_MS);
    this.#looks.set(name, cancel);
  }

  #cancelLook(name: string): void {
    this.#looks.get(name)?.();
    this.#looks.delete(name);
  }
}

function tooMany(upstream: string): UpstreamError {
  return new UpstreamError(
    "breaker-open",
    "too many registries that have not answered yet",
    { upstream, retryAfterMs: RETRY_AFTER_MS },
  );
}
