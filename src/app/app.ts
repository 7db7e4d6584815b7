import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { BlobVerifier } from "../storage/blob-verifier.ts";
import { readDiskSpace } from "../storage/local/root/disk-space.ts";
import { Evictor } from "../retention/evictor.ts";
import { HotManifests } from "../storage/hot-manifests.ts";
import { openCacheOrWait } from "../storage/local/late-cache.ts";
import { LeftPartials } from "../storage/local/blobs/left-partials.ts";
import { storedBytes } from "../storage/metadata-index.ts";
import { Room } from "../retention/room.ts";
import { settleIntents } from "../storage/local/upkeep/settle-intents.ts";
import { trackBlobStore } from "../storage/tracked-blob-store.ts";
import type { Config } from "../config/config.ts";
import {
  readDescriptorLimit,
  readMemoryLimit,
  resolveFillLimit,
} from "../config/descriptor-limit.ts";
import {
  applyConfig,
  openConfiguredAudit,
  tlsSettings,
} from "./apply-config.ts";
import { boundOperatorServers, boundServers } from "./connection-bounds.ts";
import { createClientAddress } from "../http/server/client-address.ts";
import { openAccessControl } from "../http/client-auth/access-control.ts";
import { keepHalfOpen } from "../http/server/half-open.ts";
import { Listeners } from "../http/server/listeners.ts";
import { createOperatorApp } from "../http/operator/operator-routes.ts";
import { createRegistryListener } from "../http/registry/registry-routes.ts";
import { RepeatedHeads } from "../http/fast-path/repeated-heads.ts";
import { createRoomLimits } from "../retention/eviction-limits.ts";
import { Images } from "../images/images.ts";
import { createMirror } from "../mirror/mirror.ts";
import { PinKeeper } from "../images/pin-keeper.ts";
import { refreshImage } from "../images/refresh-image.ts";
import type { UpstreamRoutes } from "../mirror/upstream-routes.ts";
import {
  createObserver,
  judgeReadiness,
  refreshBudgets,
  refreshMetrics,
  rememberTotals,
} from "./observation.ts";
import { startScrubbing } from "./scrubbing.ts";
import type { Audit } from "../telemetry/audit.ts";
import { AuditSwitch } from "../telemetry/audit-switch.ts";
import { type Clock, type Schedule, systemClock } from "../telemetry/clock.ts";
import { createLogger, type Logger } from "../telemetry/logger.ts";
import { LogOutput } from "../telemetry/log-output.ts";
import { createMetrics, type Metrics } from "../telemetry/metrics.ts";
import { createUpstreamClient } from "../upstream/create-client.ts";
import { createUpstreamSet, namesUpstream } from "./upstream-set.ts";
import { VERSION } from "../telemetry/version.ts";

/** What tests put in the place of the real thing. */
export interface AppOverrides {
  readonly clock?: Clock;
  readonly log?: Logger;
  readonly audit?: Audit;
  /** How long an upstream is waited for where a stale answer may be given. */
  readonly patienceMs?: number;
  /** Says when failed endpoints are probed in the background. */
  readonly probeSchedule?: Schedule;
  /** Says when the background scrub goes on. */
  readonly scrubSchedule?: Schedule;
  /** Says when the children of a pulled index are fetched in the background. */
  readonly childrenSchedule?: Schedule;
}

export interface App {
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly audit: Audit;
  /**
   * Takes another configuration into force, for requests that come from now on; those that run keep
   * what they began with. Addresses, whether there is TLS, and the storage stay as they are.
   *
   * @returns the top-level keys that are another than before
   * @throws Error where nothing was taken over
   */
  reload(config: Config): Promise<readonly string[]>;
  /** @returns the addresses that were bound, as `host:port` */
  listen(): Promise<{ listen: string[]; operator: string | undefined }>;
  /**
   * Takes no more requests, lets those that run come to their end, keeps what unfinished
   * downloads brought, and closes the cache.
   *
   * @param graceMs after it connections are cut
   */
  close(graceMs?: number): Promise<void>;
  /** Resolves when blobs and index have been compared, and the log of the start is written. */
  settled(): Promise<void>;
  /** Writes what is left of the log, where its reader takes it. Nothing is logged after. */
  endLog(): Promise<void>;
}

/** The one place that sees every room. Opens the cache, and listens only when told to. */
export async function buildApp(
  config: Config,
  overrides: AppOverrides = {},
): Promise<App> {
  const clock = overrides.clock ?? systemClock;
  const logOutput =
    overrides.log === undefined
      ? await LogOutput.open(config.log.format)
      : undefined;
  const log =
    overrides.log ?? createLogger(config.log, logOutput ?? process.stdout);
  const metrics = createMetrics(VERSION);
  const instanceId = randomBytes(4).toString("hex");
  // Before the cache, which a start that fails would leave locked.
  const tlsAtStart = tlsSettings(config);
  const tls =
    tlsAtStart === undefined
      ? undefined
      : await (
          await import("../http/server/server-tls.ts")
        ).openServerTls(tlsAtStart, log);
  let inForce = config;
  const isOffline = () => inForce.offline;
  const audit = new AuditSwitch(
    overrides.audit ?? (await openConfiguredAudit(config.audit?.file, log)),
  );
  const clientAddress = createClientAddress(config.trustedProxies ?? []);
  const upstreams = createUpstreamSet({
    upstreams: config.upstreams,
    templates: config.upstreamTemplates,
    createClient: (upstream, onAnswered) =>
      createUpstreamClient({
        config: upstream,
        instanceId,
        clock,
        observer: createObserver(upstream, metrics, log, onAnswered),
        isOffline,
        probeSchedule: overrides.probeSchedule,
      }),
    onRetired: ({ name, endpoints }) => {
      for (const endpoint of endpoints) {
        metrics.upstreamUp.remove({ upstream: name, endpoint });
      }
    },
  });
  // Asked for anew at each request: see Call.routes.
  const routes: UpstreamRoutes = {
    routeRepository: (hints, spelled) =>
      upstreams.routes.routeRepository(hints, spelled),
    routeRegistry: (hints) => upstreams.routes.routeRegistry(hints),
    findUpstream: (name) => upstreams.routes.findUpstream(name),
    listedName: (upstream) => upstreams.routes.listedName(upstream),
  };
  const access = await openAccessControl({
    config: config.access,
    routes,
    clock,
    log,
    audit,
    clientAddress,
  });
  const cache = await openCacheOrWait({
    root: config.storage.root,
    clock,
    log,
    onAbsence: (absence) =>
      metrics.storageDegraded.set(absence === undefined ? 0 : 1),
  });
  let roomLimits = createRoomLimits(config.eviction);
  const hot = new HotManifests();
  const blobs = trackBlobStore(cache.blobs, () => evictor.poke());
  // Of what lies at the path while the root is away nothing is known.
  const readSpace = () =>
    cache.absence === undefined
      ? readDiskSpace(config.storage.root)
      : Promise.resolve(undefined);
  const totalsNow = rememberTotals(cache.index);
  const evictor = new Evictor({
    index: cache.index,
    blobs,
    hot,
    clearLeftovers: async (partialsBytes) => {
      const { layout, fileSystem } = cache.scrubParts;
      const { index } = cache;
      const parts = { layout, fileSystem, index, blobs, clock, log };
      await new LeftPartials(parts).trim(partialsBytes);
      await settleIntents(parts);
    },
    get limits() {
      return roomLimits;
    },
    readSpace,
    clock,
    log,
    metrics,
  });
  const room = new Room({ evictor, readSpace });
  const processLimits = {
    descriptors: await readDescriptorLimit(),
    memoryBytes: readMemoryLimit(),
  };
  const verifier = new BlobVerifier({
    blobs,
    index: cache.index,
    clock,
    drop: (row, verdict) => scrubbing.drop(row, verdict),
    onVerified: (outcome) => metrics.readVerifications.inc({ outcome }),
  });
  const mirror = createMirror({
    upstreams: upstreams.configured,
    templated: upstreams.templated,
    mayBeTemplated: () => (inForce.upstreamTemplates ?? []).length > 0,
    blobs,
    room,
    index: cache.index,
    hot,
    clock,
    log,
    metrics,
    audit,
    isOffline,
    verifier,
    verifyAfterMs: () => inForce.scrub.onReadMs,
    hasRules: () => access.hasRules,
    maxFills: () => resolveFillLimit(inForce.limits?.fills ?? 0, processLimits),
    childrenSchedule: overrides.childrenSchedule,
    ...(overrides.patienceMs === undefined
      ? {}
      : { patienceMs: overrides.patienceMs }),
  });
  const scrubbing = startScrubbing({
    cache,
    mirror,
    config: () => inForce,
    clock,
    log,
    metrics,
    schedule: overrides.scrubSchedule,
  });
  const pins = new PinKeeper({
    mirror,
    index: cache.index,
    hasUpstream: (name) =>
      !isOffline() && routes.findUpstream(name) !== undefined,
    log,
  });
  const images = new Images({
    index: cache.index,
    blobs,
    evictor,
    hasCredentials: (name) =>
      upstreams.mirrored.find((upstream) => upstream.name === name)?.client
        .hasCredentials ?? false,
  });
  const startedAt = new Date(clock.nowMs()).toISOString();
  const connections = await boundServers({
    limits: config.limits,
    create: tls?.createServer ?? createServer,
    isTrustedProxy: (address) => clientAddress.isTrustedProxy(address),
    log,
  });
  const repeatedHeads = new RepeatedHeads({
    mirror,
    currentRoutes: () => upstreams.routes,
    access,
    clientAddress,
    limits: connections,
    log,
    metrics,
  });
  const registryListener = createRegistryListener({
    mirror,
    currentRoutes: () => upstreams.routes,
    access,
    clientAddress,
    audit,
    log,
    metrics,
    instanceId,
    repeatedHeads,
  });
  let isDraining = false;
  const operatorApp = createOperatorApp(
    metrics,
    {
      upstreams: () => upstreams.mirrored.map(({ client }) => client.status()),
      images,
      audit,
      routes,
      refresh: (image) =>
        refreshImage(mirror, (name) => namesUpstream(upstreams, name), image),
      scrub: scrubbing.scrub,
      status: async () => {
        const totals = await totalsNow();
        const limitBytes = await evictor.limitBytes();
        return {
          version: VERSION,
          startedAt,
          offline: inForce.offline,
          upstreams: upstreams.mirrored.map(({ name }) => name),
          storage: {
            root: config.storage.root,
            bytes: storedBytes(totals),
            limitBytes: Number.isFinite(limitBytes) ? limitBytes : null,
            blobs: totals.blobs,
            manifests: totals.manifests,
            tags: totals.tags,
          },
        };
      },
      refreshMetrics: async () => {
        refreshBudgets(upstreams.mirrored, metrics);
        await evictor.limitBytes();
        await refreshMetrics(cache, metrics);
      },
      readiness: () =>
        isDraining
          ? Promise.resolve({ isReady: false, detail: { server: "draining" } })
          : judgeReadiness(cache, room, metrics),
    },
    {
      token: () => inForce.operator.token,
      listenHost: config.operator.listen?.host,
      audit,
    },
  );
  await operatorApp.ready();
  void cache.recovered().then(() => {
    evictor.start();
    pins.start();
  });

  const registry = new Listeners(
    config.listen,
    registryListener,
    (options, listener) => {
      const server = connections.createServer(options, listener);
      keepHalfOpen(
        server,
        (socket) => connections.connectionOf(socket)?.socket ?? socket,
      );
      if (tls === undefined) repeatedHeads.watch(server);
      return server;
    },
  );
  const operatorAddress = config.operator.listen;
  const operator = new Listeners(
    operatorAddress === undefined ? [] : [operatorAddress],
    (request, response) => operatorApp.routing(request, response),
    boundOperatorServers(createServer),
  );

  return {
    metrics,
    log,
    audit,
    reload: (next) =>
      applyConfig(
        {
          tls,
          access,
          audit,
          clientAddress,
          connections,
          replaceUpstreams: (configs, templates) => {
            const isChanged = upstreams.replace(configs, templates);
            if (isChanged) mirror.replaceUpstreams(upstreams.configured);
            return isChanged;
          },
          setEviction: (eviction) => {
            roomLimits = createRoomLimits(eviction);
            evictor.poke();
          },
          log,
          logOutput,
        },
        inForce,
        next,
        (applied) => (inForce = applied),
      ),
    listen: async () => {
      const listen = await registry.listen("listen");
      try {
        const [operatorText] = await operator.listen("operator.listen");
        return { listen, operator: operatorText };
      } catch (error) {
        await registry.close(0);
        throw error;
      }
    },
    close: async (graceMs = 0) => {
      isDraining = true;
      tls?.close();
      try {
        await registry.close(graceMs);
        await Promise.all([verifier.stop(), scrubbing.stop()]);
        await access.close();
        await Promise.all([pins.stop(), mirror.close()]);
        await evictor.stop();
        await upstreams.close();
        await operator.close(0);
        await operatorApp.close();
      } finally {
        // Whatever failed: else the root stays held, and the next start takes it for a crash.
        try {
          await cache.close();
        } finally {
          await audit.close();
        }
      }
    },
    settled: () => cache.recovered().then(() => logOutput?.flush()),
    endLog: async () => {
      await logOutput?.end();
    },
  };
}
