import type { Config } from "../config/config.ts";
import type { Audit } from "../telemetry/audit.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { applyConfig, type ReloadableParts } from "./apply-config.ts";
import { buildHosted, type BuiltHosted } from "./build-hosted.ts";
import { buildImages } from "./build-images.ts";
import { buildMirror, type BuiltMirror } from "./build-mirror.ts";
import { buildServers, type BuiltServers } from "./build-servers.ts";
import { buildStorage, type BuiltStorage } from "./build-storage.ts";
import { buildUpstreams, type BuiltUpstreams } from "./build-upstreams.ts";
import type { Wishes } from "../images/wishes.ts";
import { buildWarm, type BuiltWarm } from "./build-warm.ts";
import { type ClientAccess, openClientAccess } from "./client-access.ts";
import {
  type AppOverrides,
  type Foundation,
  layFoundation,
} from "./foundation.ts";
import { logPushLimit } from "./push-notice.ts";
import { checkChangedNames, guardNames } from "./registry-names.ts";
import { operatorSources } from "./operator-sources.ts";

export type { AppOverrides } from "./foundation.ts";

export interface App {
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly audit: Audit;
  /**
   * Applies another configuration to requests that arrive from now on; running requests keep the
   * configuration they started with. Addresses, TLS on or off, and the storage do not change.
   *
   * @returns the top-level keys whose values changed
   * @throws Error if the configuration was rejected; the previous one then applies unchanged
   */
  reload(config: Config): Promise<readonly string[]>;
  /** @returns the bound addresses, as `host:port` */
  listen(): Promise<{ listen: string[]; operator: string | undefined }>;
  /**
   * Stops accepting requests, waits for the running ones, keeps the bytes of unfinished downloads,
   * and closes the storage.
   *
   * @param graceMs time after which open connections are cut
   */
  close(graceMs?: number): Promise<void>;
  /** Resolves when the recovery of the storage has ended and its log lines are written. */
  settled(): Promise<void>;
  /** Flushes the log, unless its reader has stopped reading, and closes it. */
  endLog(): Promise<void>;
}

interface Parts {
  readonly foundation: Foundation;
  readonly upstreams: BuiltUpstreams;
  readonly clientAccess: ClientAccess;
  readonly storage: BuiltStorage;
  readonly mirror: BuiltMirror;
  readonly hosted: BuiltHosted;
  readonly wishes: Wishes;
  readonly warm: BuiltWarm;
  readonly servers: BuiltServers;
}

/**
 * Builds the program from its configuration: the composition root. Opens the storage and starts the
 * background work; {@link App.listen} starts the listeners.
 */
export async function buildApp(
  config: Config,
  overrides: AppOverrides = {},
): Promise<App> {
  const foundation = await layFoundation(config, overrides);
  logPushLimit(config, foundation.log);
  const upstreams = buildUpstreams(foundation);
  // Opened before the storage: a fault here must not leave the storage locked.
  const clientAccess = await openClientAccess(foundation, upstreams.routes);
  const { access } = clientAccess;
  const storage = await buildStorage(foundation);
  const { index, upkeep } = storage.cache;
  try {
    const recovered = upkeep.recovered();
    const { set } = upstreams;
    await guardNames(config, { index, recovered, set, log: foundation.log });
  } catch (error) {
    await storage.cache.close();
    throw error;
  }
  const mirror = await buildMirror(foundation, upstreams, storage, access);
  const built = { foundation, storage, mirror, upstreams };
  const hosted = await buildHosted(built);
  const images = buildImages({ ...built, hosted });
  const warm = await buildWarm({ ...built, images });
  let isDraining = false;
  const sources = operatorSources({
    ...built,
    ...warm,
    images,
    isDraining: () => isDraining,
  });
  const { wishes } = images;
  const services = { mirror, hosted, wishes, sources };
  const servers = await buildServers(
    foundation,
    upstreams,
    clientAccess,
    services,
  );
  const { metrics, log, logOutput, audit, live } = foundation;
  const parts = {
    foundation,
    upstreams,
    clientAccess,
    storage,
    mirror,
    hosted,
    warm,
    wishes,
    servers,
  };
  void upkeep.recovered().then(() => startWork(parts));
  const reloadable = reloadableParts(parts);
  return {
    metrics,
    log,
    audit,
    reload: (next) =>
      applyConfig(reloadable, live.config, next, (applied) => {
        live.config = applied;
      }),
    listen: () => listen(servers),
    close: (graceMs = 0) => {
      isDraining = true;
      return close(parts, graceMs);
    },
    settled: () => upkeep.recovered().then(() => logOutput?.flush()),
    endLog: async () => {
      await logOutput?.end();
    },
  };
}

/** Starts the background work; called when the index is complete. */
function startWork({ storage, mirror, hosted, warm }: Parts): void {
  storage.evictor.start();
  mirror.pins.start();
  hosted.start();
  void warm.jobs.resume();
  warm.warmSchedule.start();
}

function reloadableParts({
  foundation,
  upstreams: { set },
  clientAccess,
  storage,
  mirror: { mirror },
  hosted: { replaceNotifications },
  servers,
}: Parts): ReloadableParts {
  return {
    ...clientAccess,
    audit: foundation.audit,
    connections: servers.connections,
    checkNames: (before, next) =>
      checkChangedNames(storage.cache.index, before, next),
    replaceRegistries: ({ upstreams, upstreamTemplates, hosted }) => {
      const isChanged = set.replace(upstreams, upstreamTemplates, hosted);
      if (isChanged) mirror.replaceUpstreams(set.configured);
      return isChanged;
    },
    setEviction: (eviction) => storage.setEviction(eviction),
    replaceNotifications,
    log: foundation.log,
    logOutput: foundation.logOutput,
  };
}

async function listen({
  registry,
  operator,
}: BuiltServers): ReturnType<App["listen"]> {
  const bound = await registry.listen("listen");
  try {
    const [operatorText] = await operator.listen("operator.listen");
    return { listen: bound, operator: operatorText };
  } catch (error) {
    await registry.close(0);
    throw error;
  }
}

async function close(parts: Parts, graceMs: number): Promise<void> {
  const { foundation, upstreams, clientAccess, storage, servers } = parts;
  const { mirror, verifier, scrubbing, pins } = parts.mirror;
  clientAccess.tls?.close();
  try {
    await servers.registry.close(graceMs);
    await Promise.all([verifier.stop(), scrubbing.stop()]);
    await clientAccess.access.close();
    await parts.warm.warmSchedule.stop();
    await Promise.all([
      pins.stop(),
      parts.warm.jobs.stop(),
      parts.wishes.stop(),
      mirror.close(),
      parts.hosted.stop(),
    ]);
    await storage.evictor.stop();
    await upstreams.set.close();
    await servers.operator.close(0);
    await servers.operatorApp.close();
  } finally {
    // Closed after any failure too: a root that stays locked looks like a crash to the next start.
    try {
      await storage.cache.close();
    } finally {
      await foundation.audit.close();
    }
  }
}
