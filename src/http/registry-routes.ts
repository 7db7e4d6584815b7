import type { IncomingMessage, ServerResponse } from "node:http";
import fastify, { type FastifyInstance } from "fastify";
import { Refusal, type Wanted } from "../mirror/answers.ts";
import type { Mirror, Target } from "../mirror/mirror.ts";
import type {
  RoutedRegistry,
  RoutedRepository,
  RouteHints,
  UpstreamRoutes,
} from "../mirror/upstream-routes.ts";
import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import { formatNextLink } from "../oci/link.ts";
import { OCI_INDEX } from "../oci/media-type.ts";
import {
  type DistributionPath,
  type DistributionTarget,
  formatDistributionPath,
  type ParsedPath,
} from "../oci/path.ts";
import {
  formatContentRange,
  formatUnsatisfiedRange,
  parseRangeHeader,
} from "../oci/range.ts";
import { type Reference, referenceText } from "../oci/reference.ts";
import type { Audit, AuditEvent } from "../telemetry/audit.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { AccessRefusal } from "./client-auth/access-refusal.ts";
import type { AccessControl, Admission } from "./client-auth/access-control.ts";
import type { ClientAddress } from "./client-address.ts";
import { Exchange, type RequestKind } from "./exchange.ts";
import { allowsRange, matchesIfNoneMatch } from "./preconditions.ts";
import { assertRequestHead } from "./request-head.ts";
import { createPathParser } from "./path-memory.ts";
import {
  COMMON_HEADERS,
  sendBody,
  sendBytes,
  sendError,
  sendHeaders,
} from "./send.ts";

/** Engines show this text to their users. */
const STALE_WARNING = '299 - "entrepot: stale, upstream unavailable"';

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

/** One request on its way through the routes. */
interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly exchange: Exchange;
  readonly isHead: boolean;
  readonly path: DistributionPath;
  readonly admission: Admission;
  /** Those that the request was judged by, whatever is reloaded meanwhile. */
  readonly routes: UpstreamRoutes;
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
    options.audit.record(denialOf(exchange, request, admission.user, path));
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
      return sendCatalog(options, call, target);
    case "manifest":
      return sendManifest(
        options,
        call,
        route(call, target.repository),
        target.reference,
      );
    case "blob":
      return sendBlob(
        options,
        call,
        route(call, target.repository),
        target.digest,
      );
    case "tags":
      return sendTags(options, call, target);
    case "referrers":
      return sendReferrers(
        options,
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

// --- which upstream ------------------------------------------------------------------------------

function route(call: Call, repository: string): RoutedRepository {
  const routed = call.routes.routeRepository(hintsOf(call), repository);
  if (!routed.ok) throw new RegistryError(routed.code, routed);
  call.exchange.upstream = routed.upstream.name;
  call.exchange.repository = routed.repository;
  return routed;
}

function targetOf(routed: RoutedRepository): Target {
  return { upstream: routed.upstream.name, repository: routed.repository };
}

/** For what has no repository: an upstream that is named must be one of ours. */
function routeRegistry(call: Call): RoutedRegistry {
  const routed = call.routes.routeRegistry(hintsOf(call));
  if (!routed.ok) throw new RegistryError(routed.code, routed);
  return routed;
}

function hintsOf({ path, request }: Call): RouteHints {
  return { prefix: path.prefix, ns: path.ns, host: request.headers.host };
}

function namespaceHeader(routed: {
  readonly namespace: string | undefined;
}): Record<string, string> {
  return routed.namespace === undefined
    ? {}
    : { "OCI-Namespace": routed.namespace };
}

// --- answers -------------------------------------------------------------------------------------

async function sendManifest(
  options: RegistryRoutesOptions,
  call: Call,
  routed: RoutedRepository,
  reference: Reference,
): Promise<void> {
  const { exchange, request, response } = call;
  exchange.reference = referenceText(reference);
  const target = targetOf(routed);
  const manifest =
    options.mirror.recallManifest(target, reference) ??
    (await options.mirror.getManifest(target, reference));
  exchange.cache = manifest.status;
  const headers = {
    "Content-Type": manifest.mediaType,
    ...(manifest.digest === undefined
      ? {}
      : {
          "Docker-Content-Digest": manifest.digest,
          ETag: `"${manifest.digest}"`,
        }),
    ...namespaceHeader(routed),
    "Cache-Status": manifest.status.text,
    ...agingHeaders(manifest),
  };
  if (
    manifest.digest !== undefined &&
    matchesIfNoneMatch(request.headers["if-none-match"], `"${manifest.digest}"`)
  ) {
    sendHeaders(response, 304, headers);
    return;
  }
  sendBytes(response, exchange, 200, headers, manifest.bytes, call.isHead);
}

async function sendBlob(
  options: RegistryRoutesOptions,
  call: Call,
  routed: RoutedRepository,
  digest: Digest,
): Promise<void> {
  const { exchange, request, response } = call;
  exchange.reference = digest;
  const etag = `"${digest}"`;
  const headers = {
    "Docker-Content-Digest": digest,
    ETag: etag,
    "Accept-Ranges": "bytes",
    "Content-Disposition": "attachment",
    ...namespaceHeader(routed),
  };
  const isUnchanged = matchesIfNoneMatch(
    request.headers["if-none-match"],
    etag,
  );
  if (call.isHead || isUnchanged) {
    const head = await options.mirror.statBlob(targetOf(routed), digest);
    exchange.cache = head.status;
    sendHeaders(response, isUnchanged ? 304 : 200, {
      "Content-Type": head.mediaType,
      ...headers,
      "Cache-Status": head.status.text,
      ...agingHeaders({ ageMs: head.ageMs, isStale: false }),
      ...(head.sizeBytes === undefined || isUnchanged
        ? {}
        : { "Content-Length": head.sizeBytes }),
    });
    return;
  }
  const spec = allowsRange(header(request, "if-range"), etag)
    ? parseRangeHeader(request.headers.range)
    : undefined;
  const blob = await options.mirror.openBlob(targetOf(routed), digest, spec);
  exchange.cache = blob.status;
  if (blob.kind === "unsatisfiable") {
    throw new UnsatisfiedRange(blob.sizeBytes, headers);
  }
  exchange.source = blob.source;
  const { body, range, sizeBytes } = blob;
  if (sizeBytes === undefined && request.httpVersion === "1.0") {
    body.close();
    throw new RegistryError("UNAVAILABLE", {
      detail: "the blob's size is not known and HTTP/1.0 can't be told so",
    });
  }
  const lengthBytes =
    range === undefined ? sizeBytes : range.last - range.first + 1;
  response.writeHead(range === undefined ? 200 : 206, {
    ...COMMON_HEADERS,
    "Content-Type": blob.mediaType,
    ...headers,
    "Cache-Status": blob.status.text,
    ...agingHeaders({ ageMs: blob.ageMs, isStale: false }),
    ...(range === undefined || sizeBytes === undefined
      ? {}
      : { "Content-Range": formatContentRange(range, sizeBytes) }),
    ...(lengthBytes === undefined ? {} : { "Content-Length": lengthBytes }),
  });
  // A fill's first bytes may be withheld for a while: the headers are not.
  if (blob.status.outcome !== "hit") response.flushHeaders();
  await sendBody(response, exchange, body, lengthBytes);
}

async function sendTags(
  options: RegistryRoutesOptions,
  call: Call,
  target: DistributionTarget & { kind: "tags" },
): Promise<void> {
  const routed = route(call, target.repository);
  const tags = await options.mirror.listTags(targetOf(routed), target);
  call.exchange.cache = tags.status;
  sendBytes(
    call.response,
    call.exchange,
    200,
    {
      "Content-Type": "application/json",
      ...nextLink(call, target, tags.page.nextLast),
      ...namespaceHeader(routed),
      "Cache-Status": tags.status.text,
      ...agingHeaders(tags),
    },
    JSON.stringify({ name: target.repository, tags: tags.page.entries }),
    call.isHead,
  );
}

async function sendReferrers(
  options: RegistryRoutesOptions,
  call: Call,
  routed: RoutedRepository,
  subject: Digest,
  artifactTypes: readonly string[],
): Promise<void> {
  call.exchange.reference = subject;
  const referrers = await options.mirror.listReferrers(
    targetOf(routed),
    subject,
    artifactTypes,
  );
  call.exchange.cache = referrers.status;
  sendBytes(
    call.response,
    call.exchange,
    200,
    {
      "Content-Type": OCI_INDEX,
      ...(referrers.isFiltered
        ? { "OCI-Filters-Applied": "artifactType" }
        : {}),
      ...namespaceHeader(routed),
      "Cache-Status": referrers.status.text,
      ...agingHeaders(referrers),
    },
    referrers.bytes,
    call.isHead,
  );
}

async function sendCatalog(
  options: RegistryRoutesOptions,
  call: Call,
  target: DistributionTarget & { kind: "catalog" },
): Promise<void> {
  const routed = routeRegistry(call);
  const page = await options.mirror.listRepositories(
    target,
    routed.upstream?.name,
    call.admission.maySee,
  );
  sendBytes(
    call.response,
    call.exchange,
    200,
    {
      "Content-Type": "application/json",
      ...nextLink(call, target, page.nextLast),
      ...namespaceHeader(routed),
    },
    JSON.stringify({ repositories: page.entries }),
    call.isHead,
  );
}

/** Of what comes from the cache. */
function agingHeaders({
  ageMs,
  isStale,
}: {
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}): { Age?: number; Warning?: string } {
  return {
    ...(ageMs === undefined
      ? {}
      : { Age: Math.max(0, Math.floor(ageMs / 1000)) }),
    ...(isStale ? { Warning: STALE_WARNING } : {}),
  };
}

/** Leads to the next page in the client's own spelling of the path. */
function nextLink(
  call: Call,
  target: DistributionTarget & { kind: "tags" | "catalog" },
  nextLast: string | undefined,
): { Link?: string } {
  if (nextLast === undefined) return {};
  const next = { ...call.path, target: { ...target, last: nextLast } };
  return { Link: formatNextLink(formatDistributionPath(next)) };
}

// --- refusals ------------------------------------------------------------------------------------

/** 416: the one error that tells a size. */
class UnsatisfiedRange extends Error {
  readonly headers: Readonly<Record<string, string>>;

  constructor(sizeBytes: number, headers: Readonly<Record<string, string>>) {
    super("range not satisfiable");
    this.headers = {
      ...headers,
      "Content-Range": formatUnsatisfiedRange(sizeBytes),
    };
  }
}

/** The only place where an error becomes a status and a body. */
function refuse(
  log: Logger,
  { hasRules }: AccessControl,
  request: IncomingMessage,
  response: ServerResponse,
  exchange: Exchange,
  thrown: unknown,
): void {
  if (response.headersSent) {
    response.destroy();
    exchange.error = thrown;
    return;
  }
  const isHead = request.method === "HEAD";
  let error = thrown;
  let headers: Record<string, string> = {};
  if (thrown instanceof Refusal) {
    exchange.cache = thrown.status;
    error = thrown.error;
  } else if (thrown instanceof AccessRefusal) {
    error = thrown.error;
    headers = { ...thrown.headers };
  } else if (thrown instanceof UnsatisfiedRange) {
    error = new RegistryError("RANGE_INVALID");
    headers = thrown.headers;
  }
  if (!(error instanceof RegistryError)) {
    log.error({ err: error }, "a fault of our own");
    error = new RegistryError("UNKNOWN", { cause: error });
  }
  const registryError = error as RegistryError;
  exchange.error = registryError.cause;
  if (registryError.code === "UNSUPPORTED" && registryError.status === 405) {
    // An upload's path offers nothing: a GET is refused there too (RFC 9110, 10.2.1).
    headers = { Allow: exchange.kind === "other" ? "" : "GET, HEAD" };
  }
  // A body that nobody reads must not be taken for the next request.
  if (request.method !== "GET" && !isHead) headers["Connection"] = "close";
  // Where rules exist it would tell what is not there from what may not be had.
  const isAbsence = hasRules && registryError.status === 404;
  const cache = isAbsence ? undefined : exchange.cache;
  sendError(response, exchange, registryError, cache, headers, isHead);
}

function denialOf(
  exchange: Exchange,
  request: IncomingMessage,
  user: string | undefined,
  { target }: DistributionPath,
): AuditEvent {
  return {
    event: "denied",
    client: exchange.client ?? "",
    user,
    method: request.method ?? "",
    kind: exchange.kind,
    repository: "repository" in target ? target.repository : undefined,
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

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}
