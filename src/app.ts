import { randomBytes } from "node:crypto";
import { readDiskSpace } from "./cache/disk-space.ts";
import { Evictor } from "./cache/evictor.ts";
import { HotManifests } from "./cache/hot-manifests.ts";
import { type OpenedCache, openCache } from "./cache/open-cache.ts";
import { StorageError } from "./cache/blob-store.ts";
import { Room } from "./cache/room.ts";
import { trackBlobStore } from "./cache/tracked-blob-store.ts";
import type { Config, UpstreamConfig } from "./config/config.ts";
import { openAccessControl } from "./http/client-auth/access-control.ts";
import { Listeners } from "./http/listeners.ts";
import { createOperatorApp, type Readiness } from "./http/operator-routes.ts";
import { createRegistryApp } from "./http/registry-routes.ts";
import { createRoomLimits } from "./mirror/eviction-limits.ts";
import { openServerTls } from "./http/server-tls.ts";
import { createFreshnessPolicy } from "./mirror/freshness.ts";
import type { ImageReference } from "./mirror/image-reference.ts";
import { Images } from "./mirror/images.ts";
import { createMirror, type Mirror } from "./mirror/mirror.ts";
import type { MirroredUpstream } from "./mirror/mirrored-upstream.ts";
import { createPullPolicy } from "./mirror/pull-policy.ts";
import { createUpstreamRoutes } from "./mirror/upstream-routes.ts";
import type { Digest } from "./oci/digest.ts";
import { RegistryError } from "./oci/errors.ts";
import { startScrubbing } from "./scrubbing.ts";
import { type Clock, systemClock } from "./telemetry/clock.ts";
import { createLogger, type Logger } from "./telemetry/logger.ts";
import { createMetrics, type Metrics } from "./telemetry/metrics.ts";
import { createUpstreamClient } from "./upstream/create-client.ts";
import type { UpstreamObserver } from "./upstream/observer.ts";
import { VERSION } from "./version.ts";

/** What tests put in the place of the real thing. */
export interface AppOverrides {
  readonly clock?: Clock;
  readonly log?: Logger;
  /** How long an upstream is waited for where a stale answer may be given. */
  readonly patienceMs?: number;
}

export interface App {
  readonly metrics: Metrics;
  readonly log: Logger;
  /** @returns the addresses that were bound, as `host:port` */
  listen(): Promise<{ listen: string[]; operator: string | undefined }>;
  /**
   * Takes no more requests, lets those that run come to their end, keeps what unfinished
   * downloads brought, and closes the cache.
   *
   * @param graceMs after it connections are cut
   */
  close(graceMs?: number): Promise<void>;
}

/** The one place that sees every room. Opens the cache, and listens only when told to. */
export async function buildApp(
  config: Config,
  overrides: AppOverrides = {},
): Promise<App> {
  const clock = overrides.clock ?? systemClock;
  const log = overrides.log ?? (await createLogger(config.log));
  const metrics = createMetrics(VERSION);
  const instanceId = randomBytes(4).toString("hex");
  // Before the cache, which a start that fails would leave locked.
  const tls =
    config.tls === undefined ? undefined : await openServerTls(config.tls, log);
  const routes = createUpstreamRoutes(config.upstreams);
  const access = await openAccessControl({
    config: config.access,
    routes,
    clock,
    log,
  });
  const cache = await openCache({ root: config.storage.root, clock, log });
  const upstreams = config.upstreams.map((upstream): MirroredUpstream => ({
    name: upstream.name,
    concurrency: upstream.concurrency,
    freshness: createFreshnessPolicy(upstream.freshness),
    mayPull: createPullPolicy(upstream),
    client: createUpstreamClient({
      config: upstream,
      instanceId,
      clock,
      observer: createObserver(upstream, metrics, log),
      offline: config.offline,
    }),
  }));
  const hot = new HotManifests();
  const blobs = trackBlobStore(cache.blobs, () => evictor.poke());
  const evictor = new Evictor({
    index: cache.index,
    blobs,
    hot,
    limits: createRoomLimits(config.eviction),
    readSpace: () => readDiskSpace(config.storage.root),
    clock,
    log,
    metrics,
  });
  const room = new Room({
    evictor,
    readSpace: () => readDiskSpace(config.storage.root),
  });
  const mirror = createMirror({
    upstreams,
    blobs,
    room,
    index: cache.index,
    hot,
    clock,
    log,
    metrics,
    isOffline: config.offline,
    hasRules: () => access.hasRules,
    ...(overrides.patienceMs === undefined
      ? {}
      : { patienceMs: overrides.patienceMs }),
  });
  const scrubbing = startScrubbing({
    cache,
    mirror,
    config,
    clock,
    log,
    metrics,
  });
  const images = new Images({
    index: cache.index,
    evictor,
    hasCredentials: (name) =>
      upstreams.find((upstream) => upstream.name === name)?.client
        .hasCredentials ?? false,
  });
  const startedAt = new Date(clock.nowMs()).toISOString();
  const registryApp = createRegistryApp({
    mirror,
    routes,
    access,
    log,
    metrics,
    instanceId,
  });
  let isDraining = false;
  const operatorApp = createOperatorApp(metrics, {
    upstreams: () => upstreams.map(({ client }) => client.status()),
    images,
    routes,
    refresh: (image) => refreshImage(mirror, config, image),
    scrub: scrubbing.scrub,
    status: async () => {
      const totals = await cache.index.totals();
      const limitBytes = await evictor.limitBytes();
      return {
        version: VERSION,
        startedAt,
        offline: config.offline,
        upstreams: config.upstreams.map(({ name }) => name),
        storage: {
          root: config.storage.root,
          bytes: totals.blobBytes,
          limitBytes: Number.isFinite(limitBytes) ? limitBytes : null,
          blobs: totals.blobs,
          manifests: totals.manifests,
          tags: totals.tags,
        },
      };
    },
    refreshMetrics: async () => {
      refreshBudgets(upstreams, metrics);
      await evictor.limitBytes();
      await refreshMetrics(cache, metrics);
    },
    readiness: () =>
      isDraining
        ? Promise.resolve({ isReady: false, detail: { server: "draining" } })
        : judgeReadiness(cache, room, metrics),
  });
  await Promise.all([registryApp.ready(), operatorApp.ready()]);
  void cache.recovered().then(() => evictor.start());

  const registry = new Listeners(
    config.listen,
    (request, response) => registryApp.routing(request, response),
    tls?.createServer,
  );
  const operatorAddress = config.operator.listen;
  const operator = new Listeners(
    operatorAddress === undefined ? [] : [operatorAddress],
    (request, response) => operatorApp.routing(request, response),
  );

  return {
    metrics,
    log,
    listen: async () => {
      const listen = await registry.listen();
      try {
        const [operatorText] = await operator.listen();
        return { listen, operator: operatorText };
      } catch (error) {
        await registry.close(0);
        throw error;
      }
    },
    close: async (graceMs = 0) => {
      isDraining = true;
      tls?.close();
      await registry.close(graceMs);
      await scrubbing.stop();
      await access.close();
      await mirror.close();
      await evictor.stop();
      await Promise.all(upstreams.map(({ client }) => client.close()));
      await operator.close(0);
      await Promise.all([registryApp.close(), operatorApp.close()]);
      await cache.close();
    },
  };
}

/** A digest never changes: there is nothing to ask. @throws Refusal, RegistryError */
async function refreshImage(
  mirror: Mirror,
  config: Config,
  { key, reference }: ImageReference,
): Promise<{ digest: Digest; changed: boolean }> {
  if (!config.upstreams.some(({ name }) => name === key.upstream)) {
    throw new RegistryError("NAME_UNKNOWN", { detail: "no such upstream" });
  }
  if (reference.kind === "digest") {
    const { digest } = await mirror.getManifest(key, reference);
    return { digest: digest ?? reference.digest, changed: false };
  }
  const { digest, isChanged } = await mirror.refreshTag(key, reference.tag);
  return { digest, changed: isChanged };
}

async function refreshMetrics(
  cache: OpenedCache,
  metrics: Metrics,
): Promise<void> {
  const totals = await cache.index.totals();
  metrics.storageBytes.set(totals.blobBytes);
  metrics.storageObjects.set({ kind: "blob" }, totals.blobs);
  metrics.storageObjects.set({ kind: "manifest" }, totals.manifests);
  metrics.storageObjects.set({ kind: "tag" }, totals.tags);
}

/** When they are asked for: a count is forgotten with time, and nothing tells when. */
function refreshBudgets(
  upstreams: readonly MirroredUpstream[],
  metrics: Metrics,
): void {
  metrics.upstreamRatelimitLimit.reset();
  metrics.upstreamRatelimitRemaining.reset();
  for (const { name: upstream, client } of upstreams) {
    // Of several endpoints that count an account the first one's, which is set last.
    for (const { name: credential, budget } of client.accounts().toReversed()) {
      if (budget === undefined) continue;
      const labels = { upstream, credential };
      const { limit, remaining } = budget;
      metrics.upstreamRatelimitRemaining.set(labels, remaining);
      if (limit === undefined) continue;
      metrics.upstreamRatelimitLimit.set(labels, limit);
    }
  }
}

/**
 * Ready is who can answer: the index must. A storage that takes no writes is told and counted, but
 * downloads are passed through, so it is no reason to be taken out of service.
 */
async function judgeReadiness(
  cache: OpenedCache,
  room: Room,
  metrics: Metrics,
): Promise<Readiness> {
  const [index, storage] = await Promise.allSettled([
    cache.index.probe(),
    cache.blobs.probe(),
  ]);
  const fault =
    storage.status === "rejected"
      ? faultCode(storage.reason)
      : room.isShort || cache.isOutOfRoom
        ? "ENOSPC"
        : undefined;
  const isDegraded = fault !== undefined;
  metrics.storageDegraded.set(isDegraded ? 1 : 0);
  const indexDetail = cache.isRecovering ? "ok, recovering" : "ok";
  return {
    isReady: index.status === "fulfilled",
    detail: {
      index: index.status === "fulfilled" ? indexDetail : "does not answer",
      storage: isDegraded ? `degraded: ${fault}` : "ok",
    },
  };
}

function faultCode(error: unknown): string {
  return error instanceof StorageError ? error.code : "unknown";
}

function createObserver(
  upstream: UpstreamConfig,
  metrics: Metrics,
  log: Logger,
): UpstreamObserver {
  const { name } = upstream;
  for (const endpoint of upstream.endpoints) {
    metrics.upstreamUp.set({ upstream: name, endpoint }, 1);
  }
  return {
    onResponse: ({ kind, method, status, durationMs }) => {
      metrics.upstreamRequests.inc({ upstream: name, kind, method, status });
      metrics.upstreamRequestDuration.observe(
        { upstream: name, kind },
        durationMs / 1000,
      );
    },
    onReceivedBytes: (bytes) => {
      metrics.upstreamReceivedBytes.inc({ upstream: name }, bytes);
    },
    onEndpoint: (endpoint, isUp) => {
      metrics.upstreamUp.set({ upstream: name, endpoint }, isUp ? 1 : 0);
      log[isUp ? "info" : "warn"](
        { upstream: name, endpoint },
        isUp ? "the endpoint is back" : "the endpoint is down",
      );
    },
    onFault: (kind, message) => {
      log.warn({ upstream: name, kind, fault: message }, "upstream fault");
    },
  };
}
