import { toRefusal, type Wanted } from "./answers.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";

/** Upstreams that requests create from templates. */
export interface TemplatedUpstreams {
  /**
   * Returns the upstream of that name, creating it if a template matches.
   *
   * @throws UpstreamError if no other upstream may be created now
   */
  find(name: string): MirroredUpstream | undefined;
  /** Returns the upstream of that name if it was created before. */
  peek(name: string): MirroredUpstream | undefined;
}

/** The upstreams of the current configuration, and those that only running requests still use. */
export class CurrentUpstreams {
  readonly #byName: Map<string, MirroredUpstream>;
  #configured: ReadonlySet<string>;
  readonly #templated: TemplatedUpstreams | undefined;
  readonly #mayBeTemplated: () => boolean;

  constructor(options: {
    readonly upstreams: readonly MirroredUpstream[];
    readonly templated?: TemplatedUpstreams | undefined;
    readonly mayBeTemplated?: (() => boolean) | undefined;
  }) {
    this.#byName = new Map(options.upstreams.map((up) => [up.name, up]));
    this.#configured = new Set(this.#byName.keys());
    this.#templated = options.templated;
    this.#mayBeTemplated = options.mayBeTemplated ?? (() => false);
  }

  /** Returns an upstream that exists now, without creating one. */
  peek(name: string): MirroredUpstream | undefined {
    return this.#configured.has(name)
      ? this.#byName.get(name)
      : (this.#templated?.peek(name) ?? this.#byName.get(name));
  }

  /**
   * Returns the upstream of a routed request, creating it from a template if needed.
   *
   * @throws Refusal if no other upstream may be created now
   */
  get(name: string, wanted: Wanted): MirroredUpstream {
    let upstream: MirroredUpstream | undefined;
    try {
      upstream = this.#configured.has(name)
        ? undefined
        : this.#templated?.find(name);
    } catch (error) {
      throw toRefusal(error, { wanted, hasCredentials: false });
    }
    upstream ??= this.#byName.get(name);
    if (upstream === undefined) throw new TypeError(`no upstream ${name}`);
    return upstream;
  }

  /** Whether all stored content is from one upstream, as far as the configuration says. */
  isSole(): boolean {
    return this.#byName.size === 1 && !this.#mayBeTemplated();
  }

  /** Replaces the configured upstreams. Running requests keep the upstream they began with. */
  replace(upstreams: readonly MirroredUpstream[]): void {
    for (const upstream of upstreams) this.#byName.set(upstream.name, upstream);
    this.#configured = new Set(upstreams.map(({ name }) => name));
  }
}
