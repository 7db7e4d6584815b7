import type { IncomingMessage, ServerResponse } from "node:http";
import fastify, { type FastifyInstance } from "fastify";
import type { Wanted } from "../mirror/answers.ts";
import type { Mirror } from "../mirror/mirror.ts";
import type { UpstreamRoutes } from "../mirror/upstream-routes.ts";
import { RegistryError } from "../oci/errors.ts";
import type {
  DistributionPath,
  DistributionTarget,
  ParsedPath,
} from "../oci/path.ts";
import { referenceText } from "../oci/reference.ts";
import type { Audit, AuditEvent } from "../telemetry/audit.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { ClientAddress } from "./client-address.ts";
import type { AccessControl, Judgement } from "./client-auth/access-control.ts";
import { type Call, namespaceHeader, route, routeRegistry } from "./call.ts";
import { Exchange, type RequestKind } from "./exchange.ts";
import { createPathParser } from "./path-memory.ts";
import { refuse } from "./refusals.ts";
import { assertRequestHead } from "./request-head.ts";
import { sendBlob, sendManifest } from "./send-content.ts";
import { sendCatalog, sendReferrers, sendTags } from "./send-lists.ts";
import { sendBytes } from "./send.ts";

export interface RegistryRoutesOptions {
  readonly mirror: Mirror;
  /** Of the configuration in force; asked for once a request. */
  readonly currentRoutes: () => UpstreamRoutes;
  readonly access: AccessControl;
  readonly clientAddress: ClientAddress;
  readonly audit: Audit;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Ours in `Via`: a request that carries it has come back to us. */
  readonly instanceId: string;
}

/** The registry API: it parses, asks the mirror and sends; nothing else. */
export function createRegistryApp(
  options: RegistryRoutesOptions,
): FastifyInstance {
  const { log, metrics, access } = options;
  const parsePath = createPathParser();
  const app = fastify({
    exposeHeadRoutes: false,
    // Every target goes to the one route with its raw text kept beside: a router would decode it.
    rewriteUrl: () => "/",
    logger: false,
  });
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    const exchange = new Exchange();
    exchange.client = options.clientAddress(request);
    response.once("close", () =>
      exchange.report(request, response, log, metrics),
    );
    const path = parsePath(rawTarget(request));
    return answer(options, request, response, exchange, path).catch(
      (error: unknown) => {
        refuse(log, access, request, response, exchange, error);
      },
    );
  };
  // Before a body would be read: nothing here takes one.
  app.addHook("onRequest", async (request, reply) => {
    reply.hijack();
    await handle(request.raw, reply.raw);
  });
  app.all("/", (_request, reply) => reply);
  app.setNotFoundHandler((_request, reply) => reply);
  return app;
}

function rawTarget(request: IncomingMessage): string {
  return "originalUrl" in request && typeof request.originalUrl === "string"
    ? request.originalUrl
    : (request.url ?? "");
}

async function answer(
  options: RegistryRoutesOptions,
  request: IncomingMessage,
  response: ServerResponse,
  exchange: Exchange,
  path: ParsedPath,
): Promise<void> {
  assertRequestHead(request);
  if (!path.ok) {
    throw new RegistryError(path.code, path);
  }
  exchange.kind = kindOf(path.target);
  if (options.access.isRestricting) {
    // What stands between must not give one client's answer to another; errors, and what moves, to nobody.
    response.setHeader("Vary", "Authorization");
    response.setHeader(
      "Cache-Control",
      isImmutable(path.target) ? "private" : "private, no-store",
    );
  }
  // Before anything is looked up: what may not be had is as what is not there.
  const routes = options.currentRoutes();
  const admission = await options.access.judge(request, path);
  if (admission.kind === "denied") {
    options.audit.record(denialOf(exchange, request, admission, path));
    throw options.mirror.absence(wantedBy(path.target));
  }
  exchange.user = admission.user;
  const { method } = request;
  if (
    (method !== "GET" && method !== "HEAD") ||
    path.target.kind === "upload"
  ) {
    throw new RegistryError("UNSUPPORTED", {
      detail: "this is a mirror: it can only be pulled from",
    });
  }
  if (request.headers.via?.includes(`entrepot-${options.instanceId}`)) {
    throw new RegistryError("UNAVAILABLE", {
      status: 508,
      detail: "the mirror is its own upstream",
    });
  }
  const isHead = method === "HEAD";
  await dispatch(options, {
    request,
    response,
    exchange,
    isHead,
    path,
    admission,
    routes,
  });
}

async function dispatch(
  options: RegistryRoutesOptions,
  call: Call,
): Promise<void> {
  const { target } = call.path;
  switch (target.kind) {
    case "ping":
      sendBytes(
        call.response,
        call.exchange,
        200,
        {
          "Content-Type": "application/json",
          ...namespaceHeader(routeRegistry(call)),
        },
        "{}",
        call.isHead,
      );
      return;
    case "catalog":
      return sendCatalog(options.mirror, call, target);
    case "manifest":
      return sendManifest(
        options.mirror,
        call,
        route(call, target.repository),
        target.reference,
      );
    case "blob":
      return sendBlob(
        options.mirror,
        call,
        route(call, target.repository),
        target.digest,
      );
    case "tags":
      return sendTags(options.mirror, call, target);
    case "referrers":
      return sendReferrers(
        options.mirror,
        call,
        route(call, target.repository),
        target.digest,
        target.artifactTypes,
      );
    case "upload":
      return;
    default:
      target satisfies never;
  }
}

function denialOf(
  exchange: Exchange,
  request: IncomingMessage,
  { user, repository }: Extract<Judgement, { kind: "denied" }>,
  { target }: DistributionPath,
): AuditEvent {
  return {
    event: "denied",
    client: exchange.client ?? "",
    user,
    method: request.method ?? "",
    kind: exchange.kind,
    repository,
    reference:
      target.kind === "manifest"
        ? referenceText(target.reference)
        : "digest" in target
          ? target.digest
          : undefined,
  };
}

/** The same bytes for ever, where it is there at all. */
function isImmutable(target: DistributionTarget): boolean {
  return (
    target.kind === "blob" ||
    (target.kind === "manifest" && target.reference.kind === "digest")
  );
}

function wantedBy({ kind }: DistributionTarget): Wanted {
  return kind === "manifest" || kind === "blob" ? kind : "list";
}

function kindOf(target: DistributionTarget): RequestKind {
  switch (target.kind) {
    case "manifest":
      return target.reference.kind === "tag" ? "tag" : "manifest";
    case "upload":
      return "other";
    case "ping":
    case "catalog":
    case "tags":
    case "blob":
    case "referrers":
      return target.kind;
    default:
      return target satisfies never;
  }
}
