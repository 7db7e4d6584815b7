import type { UpstreamConfig } from "../config/config.ts";
import type { MirroredUpstream } from "../mirror/mirrored-upstream.ts";
import { UpstreamError } from "../wire/errors.ts";
import type { Schedule } from "../telemetry/clock.ts";

/** Limit of registries that have answered. */
const MAX_PLACES = 100;

/** Limit of registries that have not answered yet: clients choose their names. */
const MAX_CANDIDATES = 32;

/** Interval at which an idle candidate is dropped. */
const CHECK_AFTER_MS = 30_000;

/** Sent to a client that names a registry while all candidates are busy. */
const RETRY_AFTER_MS = 5_000;

/** An upstream with its configuration. */
export interface Member {
  readonly config: UpstreamConfig;
  /** Equal for equal configurations. */
  readonly fingerprint: string;
  readonly mirrored: MirroredUpstream;
}

export interface TemplateUpstreamsOptions {
  /** Returns the configuration of a name; undefined if no template matches. */
  readonly configOf: (name: string) => UpstreamConfig | undefined;
  /** Creates an upstream that calls `onAnswered` for every answer of its registry. */
  readonly makeMember: (
    config: UpstreamConfig,
    onAnswered: () => void,
  ) => Member;
  readonly fingerprintOf: (config: UpstreamConfig) => string;
  /** Called for each upstream that was removed. */
  readonly retire: (member: Member) => void;
  /** Whether too many removed upstreams are still running to make another. */
  readonly isFull: () => boolean;
  readonly schedule: Schedule;
}

/**
 * The upstreams that requests made from templates. A name is a candidate until its registry
 * answers, so that invented names can't replace registries in use; then it gets a place. When all
 * places are taken, the least recently used one is replaced.
 */
export class TemplateUpstreams {
  /** Least recently used first. */
  readonly #places = new Map<string, Member>();
  readonly #candidates = new Map<string, Member>();
  readonly #checks = new Map<string, () => void>();
  readonly #options: TemplateUpstreamsOptions;

  constructor(options: TemplateUpstreamsOptions) {
    this.#options = options;
  }

  /** Upstreams that have a place. */
  get mirrored(): readonly MirroredUpstream[] {
    return [...this.#places.values()].map(({ mirrored }) => mirrored);
  }

  /** Returns an existing upstream; never makes one. */
  peek(name: string): MirroredUpstream | undefined {
    return (this.#use(name) ?? this.#candidates.get(name))?.mirrored;
  }

  /**
   * Returns the upstream of a name, made if necessary. All requests for a name get the same one, also
   * before it has answered.
   *
   * @throws UpstreamError if too many registries have not answered yet
   */
  find(name: string): MirroredUpstream | undefined {
    const known = this.peek(name);
    if (known !== undefined) return known;
    const config = this.#options.configOf(name);
    if (config?.template === undefined) return undefined;
    if (this.#options.isFull()) throw tooMany(name);
    if (this.#candidates.size >= MAX_CANDIDATES) this.#dropIdle(name);
    const member = this.#options.makeMember(config, () =>
      this.#settle(name, member),
    );
    this.#candidates.set(name, member);
    this.#checkLater(name, member);
    return member.mirrored;
  }

  /** Removes the upstreams whose configuration a reload changed; requests make them again. */
  reload(): void {
    for (const members of [this.#places, this.#candidates]) {
      for (const [name, member] of members) {
        const config = this.#options.configOf(name);
        const next =
          config?.template === undefined
            ? undefined
            : this.#options.fingerprintOf(config);
        if (next !== member.fingerprint) this.#drop(members, name, member);
      }
    }
  }

  /** Removes all upstreams; the caller closes them. */
  takeAll(): readonly Member[] {
    for (const cancel of this.#checks.values()) cancel();
    this.#checks.clear();
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
    this.#cancelCheck(name);
    const [oldest] = this.#places;
    if (oldest !== undefined && this.#places.size >= MAX_PLACES) {
      this.#drop(this.#places, ...oldest);
    }
    this.#places.set(name, member);
  }

  /** @throws UpstreamError if all candidates are busy */
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
    if (members === this.#candidates) this.#cancelCheck(name);
    this.#options.retire(member);
  }

  #checkLater(name: string, member: Member): void {
    const cancel = this.#options.schedule(() => {
      this.#checks.delete(name);
      if (this.#candidates.get(name) !== member) return;
      if (member.mirrored.client.isIdle()) {
        this.#drop(this.#candidates, name, member);
      } else {
        this.#checkLater(name, member);
      }
    }, CHECK_AFTER_MS);
    this.#checks.set(name, cancel);
  }

  #cancelCheck(name: string): void {
    this.#checks.get(name)?.();
    this.#checks.delete(name);
  }
}

function tooMany(upstream: string): UpstreamError {
  return new UpstreamError(
    "breaker-open",
    "too many registries that have not answered yet",
    { upstream, retryAfterMs: RETRY_AFTER_MS },
  );
}
