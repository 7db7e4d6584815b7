import { createServer } from "node:http";
import type { FastifyInstance } from "fastify";
import { RepeatedHeads } from "../http/fast-path/repeated-heads.ts";
import {
  createOperatorApp,
  type OperatorSources,
} from "../http/operator/operator-routes.ts";
import { createRegistryListener } from "../http/registry/registry-routes.ts";
import { keepHalfOpen } from "../http/server/half-open.ts";
import { type CreateServer, Listeners } from "../http/server/listeners.ts";
import type { Wishes } from "../images/wishes.ts";
import type { BuiltHosted } from "./build-hosted.ts";
import type { BuiltMirror } from "./build-mirror.ts";
import type { BuiltUpstreams } from "./build-upstreams.ts";
import type { ClientAccess } from "./client-access.ts";
import {
  boundOperatorServers,
  type BoundServers,
  boundServers,
} from "./connection-bounds.ts";
import type { Foundation } from "./foundation.ts";

export interface BuiltServers {
  readonly connections: BoundServers;
  readonly registry: Listeners;
  readonly operator: Listeners;
  readonly operatorApp: FastifyInstance;
}

/** Creates the listeners of both APIs; none of them listens yet. */
export async function buildServers(
  { config, live, log, metrics, audit, instanceId }: Foundation,
  { set }: BuiltUpstreams,
  { tls, clientAddress, access }: ClientAccess,
  {
    mirror: { mirror, purgeImage, listCatalog },
    hosted,
    wishes,
    sources,
  }: {
    readonly mirror: Pick<BuiltMirror, "mirror" | "purgeImage" | "listCatalog">;
    readonly hosted: BuiltHosted;
    readonly wishes: Pick<Wishes, "note">;
    readonly sources: OperatorSources;
  },
): Promise<BuiltServers> {
  const connections = await boundServers({
    limits: config.limits,
    create: tls?.createServer ?? createServer,
    isTrustedProxy: (address) => clientAddress.isTrustedProxy(address),
    log,
  });
  const shared = {
    mirror,
    hosted: hosted.routes,
    currentRoutes: () => set.routes,
    access,
    clientAddress,
    log,
    metrics,
  };
  const repeatedHeads = new RepeatedHeads({ ...shared, limits: connections });
  const createRegistryServer: CreateServer = (options, listener) => {
    const server = connections.createServer(options, listener);
    keepHalfOpen(
      server,
      (socket) => connections.connectionOf(socket)?.socket ?? socket,
    );
    if (tls === undefined) repeatedHeads.watch(server);
    return server;
  };
  const operatorAddress = config.operator.listen;
  const operatorApp = createOperatorApp(metrics, sources, {
    token: () => live.config.operator.token,
    listenHost: operatorAddress?.host,
    audit,
  });
  await operatorApp.ready();
  return {
    connections,
    registry: new Listeners(
      config.listen,
      createRegistryListener({
        onRefused: (ref, absence) => wishes.note(ref, absence),
        ...shared,
        purgeImage,
        listCatalog,
        audit,
        instanceId,
        repeatedHeads,
      }),
      createRegistryServer,
    ),
    operator: new Listeners(
      operatorAddress === undefined ? [] : [operatorAddress],
      (request, response) => operatorApp.routing(request, response),
      boundOperatorServers(createServer),
    ),
    operatorApp,
  };
}
