import { createHash } from "node:crypto";
import { Secret, type UpstreamConfig } from "../config/config.ts";
import { createFreshnessPolicy } from "../mirror/freshness.ts";
import type { MirroredUpstream } from "../mirror/mirrored-upstream.ts";
import { createPullPolicy } from "../mirror/pull-policy.ts";
import {
  createUpstreamRoutes,
  looksLikeRegistry,
  type UpstreamRoutes,
} from "../mirror/upstream-routes.ts";
import { type Member, TemplateUpstreams } from "./template-upstreams.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import { type Schedule, scheduleUnref } from "../telemetry/clock.ts";

/**
 * How often it is looked whether one that is no longer in force has come to rest. Two looks must
 * find it idle: a download that broke waits for some seconds before it goes on.
 */
const LOOK_AFTER_MS = 30_000;

/** Clients may name registries of templates faster than those before them come to rest. */
const MAX_RETIRING = 1_000;

/** The upstreams in force, and the way to others. */
export interface UpstreamSet {
  readonly mirrored: readonly MirroredUpstream[];
  /** Those of the configuration alone. */
  readonly configured: readonly MirroredUpstream[];
  /** Those that requests made from templates; a part of {@link mirrored} once their registries answered. */
  readonly templated: Pick<TemplateUpstreams, "find" | "peek">;
  /** Of the configuration in force: one request asks for them once. */
  readonly routes: UpstreamRoutes;
  /**
   * Takes other upstreams into force at once. One whose configuration is the same keeps its
   * connections, tokens and breakers; bodies of the others go on to their ends.
   *
   * @returns whether anything is another than before
   */
  replace(
    configs: readonly UpstreamConfig[],
    templates?: readonly UpstreamConfig[],
  ): boolean;
  close(): Promise<void>;
}

/**
 * @param createClient is given what to call when the registry has answered
 * @param onRetired told of a configuration that is no longer in force
 */
export function createUpstreamSet(options: {
  readonly upstreams: readonly UpstreamConfig[];
  readonly templates?: readonly UpstreamConfig[] | undefined;
  readonly createClient: (
    config: UpstreamConfig,
    onAnswered: () => void,
  ) => UpstreamClient;
  readonly onRetired: (config: UpstreamConfig) => void;
  readonly schedule?: Schedule;
}): UpstreamSet {
  const { createClient, onRetired, schedule = scheduleUnref } = options;
  /** Each with the end of its next look. */
  const retiring = new Map<UpstreamClient, () => void>();
  const makeMember = (
    config: UpstreamConfig,
    onAnswered: () => void = () => {},
  ): Member => ({
    config,
    fingerprint: fingerprintOf(config),
    mirrored: {
      name: config.name,
      metricLabel: config.template ?? config.name,
      concurrency: config.concurrency,
      freshness: createFreshnessPolicy(config.freshness),
      mayPull: createPullPolicy(config),
      client: createClient(config, onAnswered),
    },
  });
  let members = options.upstreams.map((config) => makeMember(config));
  let templates = options.templates ?? [];
  let routes = createUpstreamRoutes(options.upstreams, templates);
  let order = orderOf(members, templates);

  const retire = ({ config, mirrored }: Member): void => {
    const { client } = mirrored;
    client.retire();
    onRetired(config);
    const lookLater = (wasIdle: boolean): void => {
      const cancel = schedule(() => {
        const isIdle = client.isIdle();
        if (!isIdle || !wasIdle) {
          lookLater(isIdle);
          return;
        }
        retiring.delete(client);
        void client.close().catch(() => {});
      }, LOOK_AFTER_MS);
      retiring.set(client, cancel);
    };
    lookLater(false);
  };

  const configured = () => members.map(({ mirrored }) => mirrored);
  const templated = new TemplateUpstreams({
    configOf: (name) => routes.findUpstream(name),
    makeMember,
    fingerprintOf,
    retire,
    isFull: () => retiring.size >= MAX_RETIRING,
    schedule,
  });

  return {
    get mirrored() {
      return [...configured(), ...templated.mirrored];
    },
    get configured() {
      return configured();
    },
    templated,
    get routes() {
      return routes;
    },
    replace: (configs, nextTemplates = []) => {
      const before = new Map(members.map((one) => [one.fingerprint, one]));
      const same = new Set<Member>();
      const gone = () => members.filter((member) => !same.has(member));
      const next: Member[] = [];
      const fresh: UpstreamConfig[] = [];
      for (const config of configs) {
        const kept = before.get(fingerprintOf(config));
        if (kept === undefined) fresh.push(config);
        else same.add(kept);
      }
      // Before those that come in their place show themselves under the same names.
      for (const member of gone()) retire(member);
      for (const config of configs) {
        const kept = before.get(fingerprintOf(config));
        next.push(kept ?? makeMember(config));
      }
      const nextOrder = orderOf(next, nextTemplates);
      const isChanged = nextOrder !== order;
      members = next;
      order = nextOrder;
      if (isChanged) {
        templates = nextTemplates;
        routes = createUpstreamRoutes(configs, templates);
        templated.reload();
      }
      return isChanged;
    },
    close: async () => {
      for (const cancel of retiring.values()) cancel();
      const clients = [
        ...[...members, ...templated.takeAll()].map(
          ({ mirrored }) => mirrored.client,
        ),
        ...retiring.keys(),
      ];
      retiring.clear();
      await Promise.all(clients.map((client) => client.close()));
    },
  };
}

/**
 * Whether the first part of an operator's reference names an upstream. `team` of `team/app:1` matches
 * the template `*`, but is the name of a registry only if a client's `ns` has made it one.
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

/** The first that two share decides, so their order is a part of what they mean. */
function orderOf(
  members: readonly Member[],
  templates: readonly UpstreamConfig[],
): string {
  return [
    ...members.map(({ fingerprint }) => fingerprint),
    ...templates.map(fingerprintOf),
  ].join(" ");
}

/** Secrets included, and not to be found in it. */
function fingerprintOf(config: UpstreamConfig): string {
  const text = JSON.stringify(config, function (this: unknown, key, value) {
    // JSON asks a secret for its text before it asks here.
    const holder = (this as Record<string, unknown>)[key];
    return holder instanceof Secret ? holder.reveal() : (value as unknown);
  });
  return createHash("sha256").update(text).digest("base64");
}
