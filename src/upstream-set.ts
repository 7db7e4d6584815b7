import { createHash } from "node:crypto";
import { type Schedule, scheduleUnref } from "./cache/access-times.ts";
import { Secret, type UpstreamConfig } from "./config/config.ts";
import { createFreshnessPolicy } from "./mirror/freshness.ts";
import type { MirroredUpstream } from "./mirror/mirrored-upstream.ts";
import { createPullPolicy } from "./mirror/pull-policy.ts";
import {
  createUpstreamRoutes,
  type UpstreamRoutes,
} from "./mirror/upstream-routes.ts";
import type { UpstreamClient } from "./upstream/client.ts";

/**
 * How often it is looked whether one that is no longer in force has come to rest. Two looks must
 * find it idle: a download that broke waits for some seconds before it goes on.
 */
const LOOK_AFTER_MS = 30_000;

/** The upstreams in force, and the way to others. */
export interface UpstreamSet {
  readonly mirrored: readonly MirroredUpstream[];
  /** Of the configuration in force: one request asks for them once. */
  readonly routes: UpstreamRoutes;
  /**
   * Takes other upstreams into force at once. One whose configuration is the same keeps its
   * connections, tokens and breakers; bodies of the others go on to their ends.
   *
   * @returns whether anything is another than before
   */
  replace(configs: readonly UpstreamConfig[]): boolean;
  close(): Promise<void>;
}

interface Member {
  readonly config: UpstreamConfig;
  readonly fingerprint: string;
  readonly mirrored: MirroredUpstream;
}

/** @param onRetired told of a configuration that is no longer in force */
export function createUpstreamSet(options: {
  readonly upstreams: readonly UpstreamConfig[];
  readonly createClient: (config: UpstreamConfig) => UpstreamClient;
  readonly onRetired: (config: UpstreamConfig) => void;
  readonly schedule?: Schedule;
}): UpstreamSet {
  const { createClient, onRetired, schedule = scheduleUnref } = options;
  /** Each with the end of its next look. */
  const retiring = new Map<UpstreamClient, () => void>();
  const makeMember = (config: UpstreamConfig): Member => ({
    config,
    fingerprint: fingerprintOf(config),
    mirrored: {
      name: config.name,
      concurrency: config.concurrency,
      freshness: createFreshnessPolicy(config.freshness),
      mayPull: createPullPolicy(config),
      client: createClient(config),
    },
  });
  let members = options.upstreams.map(makeMember);
  let routes = createUpstreamRoutes(options.upstreams);
  let order = orderOf(members);

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

  return {
    get mirrored() {
      return members.map(({ mirrored }) => mirrored);
    },
    get routes() {
      return routes;
    },
    replace: (configs) => {
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
      const nextOrder = orderOf(next);
      const isChanged = nextOrder !== order;
      members = next;
      order = nextOrder;
      routes = createUpstreamRoutes(configs);
      return isChanged;
    },
    close: async () => {
      for (const cancel of retiring.values()) cancel();
      const clients = [
        ...members.map(({ mirrored }) => mirrored.client),
        ...retiring.keys(),
      ];
      retiring.clear();
      await Promise.all(clients.map((client) => client.close()));
    },
  };
}

/** The first that two share decides, so their order is a part of what they mean. */
function orderOf(members: readonly Member[]): string {
  return members.map(({ fingerprint }) => fingerprint).join(" ");
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
