import type { HostedConfig, UpstreamConfig } from "../config/config.ts";
import { createFreshnessPolicy } from "../mirror/freshness.ts";
import type { MirroredUpstream } from "../mirror/mirrored-upstream.ts";
import { createPullPolicy } from "../mirror/pull-policy.ts";
import {
  createRoutes,
  looksLikeRegistry,
  type Routes,
} from "../routing/routes.ts";
import { type Schedule, scheduleUnref } from "../telemetry/clock.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import { fingerprintOf } from "./config-fingerprint.ts";
import { RetiredUpstreams } from "./retired-upstreams.ts";
import { type Member, TemplateUpstreams } from "./template-upstreams.ts";

export interface UpstreamSetOptions {
  readonly upstreams: readonly UpstreamConfig[];
  readonly templates?: readonly UpstreamConfig[] | undefined;
  /** Registries that requests are routed to besides the upstreams. */
  readonly hosted?: readonly HostedConfig[] | undefined;
  /** Creates a client that calls `onAnswered` for every answer of its registry. */
  readonly createClient: (
    config: UpstreamConfig,
    onAnswered: () => void,
  ) => UpstreamClient;
  /** Called for each configuration that no longer applies. */
  readonly onRetired: (config: UpstreamConfig) => void;
  readonly schedule?: Schedule;
}

/** The upstreams that apply now; a reload replaces them. */
export class UpstreamSet {
  /**
   * Upstreams that requests made from templates; they are in {@link mirrored} once their registries
   * have answered.
   */
  readonly templated: TemplateUpstreams;
  readonly #options: UpstreamSetOptions;
  readonly #retired: RetiredUpstreams;
  #members: readonly Member[];
  #routes: Routes;
  /** Fingerprints of the configured upstreams and templates, in their order. */
  #fingerprints: string;
  #hostedFingerprints: string;
  /** Names that no template may use: content was pushed to hosted registries of these names. */
  readonly #reserved = new Set<string>();
  /** Names that are not routed. */
  readonly #blocked = new Set<string>();
  #configured: Parameters<typeof createRoutes>;

  constructor(options: UpstreamSetOptions) {
    const { upstreams, templates = [], hosted = [] } = options;
    const { schedule = scheduleUnref } = options;
    this.#options = options;
    this.#retired = new RetiredUpstreams(schedule);
    this.#members = upstreams.map((config) => this.#makeMember(config));
    this.#configured = [upstreams, templates, hosted];
    this.#routes = this.#createRoutes();
    this.#fingerprints = fingerprintsOf(this.#members, templates);
    this.#hostedFingerprints = hosted.map(fingerprintOf).join(" ");
    this.templated = new TemplateUpstreams({
      configOf: (name) => this.#routes.findUpstream(name),
      makeMember: (config, onAnswered) => this.#makeMember(config, onAnswered),
      fingerprintOf,
      retire: (member) => this.#retire(member),
      isFull: () => this.#retired.isFull,
      schedule,
    });
  }

  get mirrored(): readonly MirroredUpstream[] {
    return [...this.configured, ...this.templated.mirrored];
  }

  /** Upstreams of the configuration, without those made from templates. */
  get configured(): readonly MirroredUpstream[] {
    return this.#members.map(({ mirrored }) => mirrored);
  }

  /** Routes of the configuration that applies now: a request reads them once. */
  get routes(): Routes {
    return this.#routes;
  }

  /**
   * Replaces the upstreams for new requests. One with an unchanged configuration keeps its
   * connections, tokens and breakers; running downloads of the others finish.
   *
   * @returns whether any upstream changed
   */
  replace(
    configs: readonly UpstreamConfig[],
    templates: readonly UpstreamConfig[] = [],
    hosted: readonly HostedConfig[] = [],
  ): boolean {
    const before = new Map(this.#members.map((one) => [one.fingerprint, one]));
    const keptFor = (config: UpstreamConfig): Member | undefined =>
      before.get(fingerprintOf(config));
    const kept = new Set(configs.map(keptFor));
    // Before their successors, which may have the same names in the metrics.
    for (const member of this.#members) {
      if (!kept.has(member)) this.#retire(member);
    }
    this.#members = configs.map(
      (config) => keptFor(config) ?? this.#makeMember(config),
    );
    const fingerprints = fingerprintsOf(this.#members, templates);
    const hostedFingerprints = hosted.map(fingerprintOf).join(" ");
    const isChanged = fingerprints !== this.#fingerprints;
    if (!isChanged && hostedFingerprints === this.#hostedFingerprints) {
      return false;
    }
    this.#fingerprints = fingerprints;
    this.#hostedFingerprints = hostedFingerprints;
    this.#configured = [configs, templates, hosted];
    this.#blocked.clear();
    this.#routes = this.#createRoutes();
    this.templated.reload();
    return isChanged;
  }

  /** Keeps templates from making upstreams of these names. */
  reserve(names: readonly string[]): void {
    for (const name of names) this.#reserved.add(name);
    this.#routes = this.#createRoutes();
    this.templated.reload();
  }

  /** Routes no request to the registries of these names, until the next reload. */
  block(names: readonly string[]): void {
    for (const name of names) this.#blocked.add(name);
    this.#routes = this.#createRoutes();
  }

  async close(): Promise<void> {
    const members = [...this.#members, ...this.templated.takeAll()];
    const clients = [
      ...members.map(({ mirrored }) => mirrored.client),
      ...this.#retired.takeAll(),
    ];
    await Promise.all(clients.map((client) => client.close()));
  }

  #createRoutes(): Routes {
    const [upstreams, templates, hosted = []] = this.#configured;
    // After a reload removed a hosted registry, no template may make an upstream of its name.
    for (const { name } of hosted) this.#reserved.add(name);
    const isBlocked = (name: string): boolean => this.#blocked.has(name);
    return createRoutes(
      upstreams.filter(
        ({ name, aliases }) => ![name, ...aliases].some(isBlocked),
      ),
      templates,
      hosted.filter(({ name }) => !isBlocked(name)),
      this.#reserved,
    );
  }

  #makeMember(
    config: UpstreamConfig,
    onAnswered: () => void = () => {},
  ): Member {
    return {
      config,
      fingerprint: fingerprintOf(config),
      mirrored: {
        name: config.name,
        metricLabel: config.template ?? config.name,
        concurrency: config.concurrency,
        freshness: createFreshnessPolicy(config.freshness),
        mayPull: createPullPolicy(config),
        client: this.#options.createClient(config, onAnswered),
      },
    };
  }

  #retire(member: Member): void {
    this.#retired.add(member);
    this.#options.onRetired(member.config);
  }
}

/**
 * Whether the first part of an operator's reference names an upstream. The template `*` matches
 * `team` of `team/app:1` too, but that is a registry only if the `ns` of a client made it one.
 */
export function namesUpstream(
  { routes, templated }: Pick<UpstreamSet, "routes" | "templated">,
  name: string,
): boolean {
  const config = routes.findUpstream(name);
  if (config === undefined) return false;
  return (
    config.template === undefined ||
    looksLikeRegistry(name) ||
    templated.peek(name) !== undefined
  );
}

/** The order counts: if several upstreams match a request, the first one serves it. */
function fingerprintsOf(
  members: readonly Member[],
  templates: readonly UpstreamConfig[],
): string {
  return [
    ...members.map(({ fingerprint }) => fingerprint),
    ...templates.map(fingerprintOf),
  ].join(" ");
}
