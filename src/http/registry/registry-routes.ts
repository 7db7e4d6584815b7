import type {
  IncomingMessage,
  RequestListener,
  ServerResponse,
} from "node:http";
import { type Absence, Refusal, type Wanted } from "../../mirror/answers.ts";
import type { ListCatalog } from "../../images/catalog.ts";
import type { PurgeImage } from "../../images/purge-image.ts";
import type { Mirror } from "../../mirror/mirror.ts";
import {
  registryName,
  type RoutedRepository,
  type Routes,
} from "../../routing/routes.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { DistributionTarget, PathRefusal } from "../../oci/path.ts";
import type { Audit, AuditEvent } from "../../telemetry/audit.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { createRequestLog } from "../../telemetry/request-log.ts";
import { BodyTexts } from "../fast-path/body-texts.ts";
import {
  addNamespace,
  type Call,
  type RepositoryTarget,
  route,
  routeRegistry,
} from "./call.ts";
import type { ClientAddress } from "../server/client-address.ts";
import type {
  AccessControl,
  Judgement,
} from "../client-auth/access-control.ts";
import { Exchange } from "./exchange.ts";
import type { HostedRoutes } from "./hosted-routes.ts";
import { pushRefusal, writeMirrored } from "./mirrored-writes.ts";
import { MethodRefusal, refuse } from "./refusals.ts";
import { assertRequestHead } from "./request-head.ts";
import type { RepeatedHeads } from "../fast-path/repeated-heads.ts";
import { createTargetReader, type RequestTarget } from "./request-target.ts";
import { sendBlob, sendManifest } from "./send-content.ts";
import { sendHostedAbsence } from "./send-hosted.ts";
import { sendCatalog, sendReferrers, sendTags } from "./send-lists.ts";
import { beginHead, sendBytes } from "./send.ts";
import { UnknownRegistries } from "./unknown-registries.ts";

export interface RegistryRoutesOptions {
  readonly mirror: Mirror;
  /** Absent: nothing is hosted. */
  readonly hosted?: Pick<HostedRoutes, "answer">;
  /** Drops cached images on a client's order. */
  readonly purgeImage: PurgeImage;
  readonly listCatalog: ListCatalog;
  /** Returns the routes of the current configuration; called once for each request. */
  readonly currentRoutes: () => Routes;
  readonly access: AccessControl;
  readonly clientAddress: ClientAddress;
  readonly audit: Audit;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Our id in `Via`: a request that contains it was sent by this mirror. */
  readonly instanceId: string;
  /**
   * Called for a manifest that a client may pull and could not have, with its reference as
   * `registry/repository:tag` or `…@digest`. Must not throw.
   */
  readonly onRefused?: (ref: string, absence: Absence) => void;
  /** Notified of responses from memory. */
  readonly repeatedHeads?: Pick<RepeatedHeads, "noteRecalled">;
}

/** Creates the listener of the registry API: parse, authorise, call the mirror, send. */
export function createRegistryListener(
  options: RegistryRoutesOptions,
): RequestListener {
  const { log, metrics, access, clientAddress } = options;
  const logRequest = createRequestLog(log);
  const readTarget = createTargetReader();
  const shared = {
    bodyTexts: new BodyTexts(),
    unknownRegistries: new UnknownRegistries(log, metrics),
  };
  return (request, response) => {
    const exchange = new Exchange();
    exchange.client = clientAddress(request);
    response.on("close", () => {
      const { method, url, headers } = request;
      exchange.report(
        { method, url, userAgent: headers["user-agent"] },
        response.statusCode,
        response.writableFinished,
        logRequest,
        metrics,
      );
    });
    const refuseFor = (error: unknown) => {
      noteRefused(options, request, exchange, error);
      refuse(log, access, request, response, exchange, error);
    };
    try {
      const target = readTarget(request.url ?? "");
      answer(options, request, response, exchange, target, shared)?.catch(
        refuseFor,
      );
    } catch (error) {
      refuseFor(error);
    }
  };
}

/** Reports a manifest that a client may pull and could not have. */
function noteRefused(
  { onRefused }: RegistryRoutesOptions,
  request: IncomingMessage,
  { upstream, repository, reference, kind }: Exchange,
  error: unknown,
): void {
  if (onRefused === undefined || !(error instanceof Refusal)) return;
  const { absence } = error;
  // A client without the right to pull is answered before the upstream is known.
  if (absence === undefined || upstream === undefined || !isRead(request)) {
    return;
  }
  if (kind === "tag")
    onRefused(`${upstream}/${repository}:${reference}`, absence);
  if (kind === "manifest") {
    onRefused(`${upstream}/${repository}@${reference}`, absence);
  }
}

/** @returns undefined if the response has been sent */
function answer(
  options: RegistryRoutesOptions,
  request: IncomingMessage,
  response: ServerResponse,
  exchange: Exchange,
  requested: RequestTarget | PathRefusal,
  shared: Pick<Call, "bodyTexts" | "unknownRegistries">,
): Promise<void> | undefined {
  assertRequestHead(request);
  if (isRead(request) && isRoot(request.url)) {
    sendGreeting(response, exchange, request.method === "HEAD");
    return undefined;
  }
  if (!requested.ok) {
    const { onRead, detail } = requested;
    throw onRead !== undefined && isRead(request)
      ? new RegistryError(onRead, { detail })
      : new RegistryError(requested.code, requested);
  }
  exchange.kind = requested.kind;
  if (options.access.isRestricting) {
    // A shared cache must not give one client's response to another; errors and tags must not be
    // stored at all.
    response.setHeader("Vary", "Authorization");
    response.setHeader(
      "Cache-Control",
      isImmutable(requested.path.target) ? "private" : "private, no-store",
    );
  }
  // Authorise before any lookup: forbidden must be indistinguishable from not found.
  const routes = options.currentRoutes();
  const judgement = options.access.judge(request, requested, routes);
  const proceed = (judged: Judgement) => {
    const isDenied = judged.kind === "denied";
    const call: Call = {
      request,
      response,
      exchange,
      isHead: request.method === "HEAD",
      requested,
      admission: isDenied ? { user: judged.user, ...NO_RIGHTS } : judged,
      routes,
      ...shared,
    };
    if (!isDenied) return dispatch(options, call);
    options.audit.record(
      denialOf(routes, request, judged.user, exchange, requested),
    );
    if (judged.refusal !== undefined) throw judged.refusal;
    return answerDenied(options, call);
  };
  return judgement instanceof Promise
    ? judgement.then(proceed)
    : proceed(judgement);
}

const NO_RIGHTS = { maySee: () => false, may: () => false } as const;

/** Answers a forbidden read as one of missing content. @throws Refusal, RegistryError */
function answerDenied(
  options: RegistryRoutesOptions,
  call: Call,
): Promise<void> | undefined {
  const { requested, request, routes } = call;
  const { target } = requested.path;
  if ("repository" in target) {
    const { host } = request.headers;
    const routed = requested.route(routes, host, target.repository);
    if (routed.ok && routed.kind === "hosted") {
      return sendHostedAbsence(call, routed, target);
    }
  }
  throw options.mirror.absence(wantedBy(target));
}

/** @returns undefined if the response has been sent */
function dispatch(
  options: RegistryRoutesOptions,
  call: Call,
): Promise<void> | undefined {
  const { exchange, request } = call;
  const { target } = call.requested.path;
  exchange.user = call.admission.user;
  if (request.headers.via?.includes(`entrepot-${options.instanceId}`)) {
    throw new RegistryError("UNAVAILABLE", {
      status: 508,
      detail: "the mirror is its own upstream",
    });
  }
  if (target.kind === "ping" || target.kind === "catalog") {
    if (!isRead(request)) throw new MethodRefusal("GET, HEAD");
    if (target.kind === "catalog") {
      return sendCatalog(options.listCatalog, call, target);
    }
    sendPing(call);
    return undefined;
  }
  const routed = route(call, target.repository);
  exchange.reference = call.requested.reference;
  if (routed.kind === "hosted") {
    if (options.hosted === undefined) throw new RegistryError("NAME_UNKNOWN");
    const answering = options.hosted.answer(call, routed, target);
    if (answering === undefined) options.repeatedHeads?.noteRecalled(call);
    return answering;
  }
  return isRead(request)
    ? answerMirrored(options, call, routed, target)
    : writeMirrored(options, call, routed, target);
}

/** @returns undefined if the response has been sent */
function answerMirrored(
  options: RegistryRoutesOptions,
  call: Call,
  routed: RoutedRepository,
  target: RepositoryTarget,
): Promise<void> | undefined {
  const { mirror } = options;
  switch (target.kind) {
    case "manifest": {
      const sending = sendManifest(mirror, call, routed, target.reference);
      if (sending === undefined) options.repeatedHeads?.noteRecalled(call);
      return sending;
    }
    case "blob":
      return sendBlob(mirror, call, routed, target.digest);
    case "tags":
      return sendTags(mirror, call, routed, target);
    case "referrers":
      return sendReferrers(mirror, call, routed, target);
    case "upload":
      throw pushRefusal(call, routed, target);
    default:
      return target satisfies never;
  }
}

function isRead({ method }: IncomingMessage): boolean {
  return method === "GET" || method === "HEAD";
}

/** The response to a browser at `/`; clients of the API do not request it. */
const GREETING =
  "Entrepot, a registry and a pull-through mirror of other registries. The registry API is at /v2/; the README describes how to point an engine at it.\n";

function isRoot(target: string | undefined): boolean {
  return target === "/" || target?.startsWith("/?") === true;
}

function sendGreeting(
  response: ServerResponse,
  exchange: Exchange,
  isHead: boolean,
): void {
  const head = beginHead("text/plain; charset=utf-8");
  sendBytes(response, exchange, 200, head, GREETING, isHead);
}

function sendPing(call: Call): void {
  const head = beginHead("application/json");
  addNamespace(head, routeRegistry(call));
  sendBytes(call.response, call.exchange, 200, head, "{}", call.isHead);
}

function denialOf(
  routes: Routes,
  request: IncomingMessage,
  user: string | undefined,
  exchange: Exchange,
  requested: RequestTarget,
): AuditEvent {
  const { path, reference } = requested;
  const routed =
    "repository" in path.target
      ? requested.route(routes, request.headers.host, path.target.repository)
      : undefined;
  return {
    event: "denied",
    client: exchange.client ?? "",
    user,
    method: request.method ?? "",
    kind: exchange.kind,
    // The canonical name, not the spelling of the request.
    repository: routed?.ok
      ? `${registryName(routed)}/${routed.repository}`
      : undefined,
    reference,
  };
}

/** Whether the content of the target, if any, never changes. */
function isImmutable(target: DistributionTarget): boolean {
  return (
    target.kind === "blob" ||
    (target.kind === "manifest" && target.reference.kind === "digest")
  );
}

function wantedBy({ kind }: DistributionTarget): Wanted {
  return kind === "manifest" || kind === "blob" ? kind : "list";
}
