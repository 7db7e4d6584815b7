import type { Routes } from "../routing/routes.ts";
import { createUpstreamClient } from "../upstream/create-client.ts";
import type { Foundation } from "./foundation.ts";
import { createObserver } from "./observation.ts";
import { UpstreamSet } from "./upstream-set.ts";

export interface BuiltUpstreams {
  readonly set: UpstreamSet;
  /** Forwards every call to the routes that apply now; see `Call.routes`. */
  readonly routes: Routes;
}

/** Creates a client for each configured upstream; contacts none of them. */
export function buildUpstreams({
  config,
  live,
  overrides,
  clock,
  log,
  metrics,
  instanceId,
}: Foundation): BuiltUpstreams {
  const set = new UpstreamSet({
    upstreams: config.upstreams,
    templates: config.upstreamTemplates,
    hosted: config.hosted,
    createClient: (upstream, onAnswered) =>
      createUpstreamClient({
        config: upstream,
        instanceId,
        clock,
        observer: createObserver(upstream, metrics, log, onAnswered),
        isOffline: () => live.config.offline,
        probeSchedule: overrides.probeSchedule,
      }),
    onRetired: ({ name, endpoints }) => {
      for (const endpoint of endpoints) {
        metrics.upstreamUp.remove({ upstream: name, endpoint });
      }
    },
  });
  const routes: Routes = {
    get hostnames() {
      return set.routes.hostnames;
    },
    routeRepository: (hints, spelled) =>
      set.routes.routeRepository(hints, spelled),
    routeRegistry: (hints) => set.routes.routeRegistry(hints),
    findUpstream: (name) => set.routes.findUpstream(name),
    findHosted: (name) => set.routes.findHosted(name),
    listedName: (registry) => set.routes.listedName(registry),
    pushTarget: () => set.routes.pushTarget(),
  };
  return { set, routes };
}
