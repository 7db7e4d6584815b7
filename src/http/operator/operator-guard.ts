import { createHash, timingSafeEqual } from "node:crypto";
import { hostname } from "node:os";
import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Secret } from "../../config/config.ts";
import { RegistryError, type RegistryErrorCode } from "../../oci/errors.ts";
import type { Audit } from "../../telemetry/audit.ts";
import { isLoopbackAddress } from "../server/client-address.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import {
  hasForeignOrigin,
  hostName,
  isLoopbackClient,
} from "../server/loopback.ts";
import { RESPONSE_HEADERS, sendProblem } from "./problem.ts";
import { countHosts } from "../registry/request-head.ts";

export interface OperatorGuardOptions {
  /** Required by every route that is not open; without a token only loopback clients are admitted. */
  readonly token: () => Secret | undefined;
  /** The host of `operator.listen`; if it is a name, it is allowed as `Host`. */
  readonly listenHost: string | undefined;
  readonly audit: Audit;
}

/** Routes that need neither a token nor a loopback client. */
const OPEN_ROUTES: ReadonlySet<string> = new Set([
  "/healthz",
  "/readyz",
  "/metrics",
]);

interface OperatorRefusal {
  readonly status: 401 | 403;
  readonly code: RegistryErrorCode;
  readonly detail: string;
}

/**
 * Authorises every request of the operator listener, requests of unknown routes included.
 *
 * A request with a foreign `Origin` is refused. The `Host` of a loopback client must be an address or
 * a name of this machine: a web page can make a browser send requests to 127.0.0.1 under another name
 * (DNS rebinding). Without a token only loopback clients are admitted.
 */
export function guardOperatorApp(
  app: FastifyInstance,
  options: OperatorGuardOptions,
): void {
  const listenHost = (options.listenHost ?? "").toLowerCase();
  const hostnames: ReadonlySet<string> = new Set(
    listenHost === "" || isIP(listenHost) !== 0 ? [] : [listenHost],
  );
  const ownNames: ReadonlySet<string> = new Set([
    "localhost",
    hostname().toLowerCase(),
    ...hostnames,
  ]);
  app.addHook("onRequest", async (request, reply) => {
    // The matched route, not the written path: it has only one spelling.
    const route = request.routeOptions.url ?? "";
    const isOpen = OPEN_ROUTES.has(route);
    const refusal = judge(request, isOpen, options.token(), {
      ownNames,
      hostnames,
    });
    if (refusal === undefined) return undefined;
    const { status, code, detail } = refusal;
    if (!isOpen) {
      options.audit.record({
        event: "denied",
        client: canonicalAddress(request.raw.socket.remoteAddress),
        method: request.method,
        kind: "api",
        reference: route,
        reason: detail,
      });
    }
    if (status === 401) reply.header("WWW-Authenticate", "Bearer");
    return sendProblem(reply, new RegistryError(code, { status, detail }));
  });
  app.addHook("onSend", async (_request, reply) => {
    reply.headers(RESPONSE_HEADERS);
  });
}

interface ListenerNames {
  /** Names of this machine, allowed in the `Host` of a loopback client for every route. */
  readonly ownNames: ReadonlySet<string>;
  /** Configured names. */
  readonly hostnames: ReadonlySet<string>;
}

function judge(
  request: FastifyRequest,
  isOpen: boolean,
  token: Secret | undefined,
  { ownNames, hostnames }: ListenerNames,
): OperatorRefusal | undefined {
  const { headers, rawHeaders, socket, url = "" } = request.raw;
  if (hasForeignOrigin(request.raw) || isOfAnotherPage(headers)) {
    return deny("scripts of other pages are not clients of this API");
  }
  // With two hosts, a proxy may have used the other one.
  if (countHosts(rawHeaders) > 1 || !url.startsWith("/")) {
    return deny("the request has more than one host");
  }
  const isLoopback = isLoopbackAddress(canonicalAddress(socket.remoteAddress));
  if (isLoopback && !isOwnHost(headers.host ?? "", ownNames)) {
    return deny("the Host header is not a name of this machine");
  }
  if (isOpen) return undefined;
  if (token !== undefined) {
    return isToken(headers.authorization, token)
      ? undefined
      : {
          status: 401,
          code: "UNAUTHORIZED",
          detail: "the token of operator.tokenFile is required",
        };
  }
  return isLoopbackClient(request.raw, { hostnames, origin: "own" })
    ? undefined
    : deny("without operator.tokenFile only loopback clients are admitted");
}

/**
 * Whether a foreign web page sent the request: its images and scripts are fetched without `Origin`.
 * Following a link (`navigate`) is allowed.
 *
 * @see https://www.w3.org/TR/fetch-metadata/
 */
function isOfAnotherPage(headers: IncomingHttpHeaders): boolean {
  const site = headers["sec-fetch-site"];
  return (
    (site === "cross-site" || site === "same-site") &&
    headers["sec-fetch-mode"] !== "navigate"
  );
}

function deny(detail: string): OperatorRefusal {
  return { status: 403, code: "DENIED", detail };
}

function isOwnHost(host: string, ownNames: ReadonlySet<string>): boolean {
  const name = hostName(host);
  return isIP(name) !== 0 || ownNames.has(name) || name.endsWith(".localhost");
}

/** Compares in constant time, for any length. */
function isToken(authorization: string | undefined, token: Secret): boolean {
  const [, given] = /^Bearer +(\S+) *$/i.exec(authorization ?? "") ?? [];
  return (
    given !== undefined &&
    timingSafeEqual(sha256(given), sha256(token.reveal()))
  );
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
