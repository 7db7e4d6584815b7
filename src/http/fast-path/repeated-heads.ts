import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";
import { LRUCache } from "lru-cache";
import type { Mirror } from "../../mirror/mirror.ts";
import type {
  RoutedHosted,
  RoutedRepository,
  Routes,
} from "../../routing/routes.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import {
  createRequestLog,
  type RequestRecord,
} from "../../telemetry/request-log.ts";
import { type Call, targetOf } from "../registry/call.ts";
import type { SwitchableClientAddress } from "../server/client-address.ts";
import type { AccessControl } from "../client-auth/access-control.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import type { ConnectionLimits } from "../server/connection-limits.ts";
import type { HostedRoutes } from "../registry/hosted-routes.ts";
import { Exchange } from "../registry/exchange.ts";
import { ReadHead } from "./read-head.ts";
import { type FoundAnswer, WatchedConnection } from "./watched-connection.ts";

/** Longer heads are seldom repeated. */
const MAX_HEAD_BYTES = 2_048;
/** For larger bodies the cost of the bytes dominates. */
const MAX_BODY_BYTES = 16 * 1024;
/** Bytes of heads and of the last responses to them. */
const MAX_KEPT_BYTES = 4 * 1024 * 1024;
/** The objects of an entry, and the response's headers. */
const ENTRY_OVERHEAD_BYTES = 2_048;

/**
 * Headers that do not change the response to a manifest request; `Host` is remembered with the head.
 * A head with any other header is always parsed: it may carry credentials, a precondition or a body.
 */
const ORDINARY_HEADERS = new Set([
  "host",
  "user-agent",
  "accept",
  "accept-encoding",
]);

export interface RepeatedHeadsOptions {
  readonly mirror: Pick<Mirror, "recallManifest">;
  /** Absent: hosted manifests are always parsed. */
  readonly hosted?: Pick<HostedRoutes, "recall"> | undefined;
  readonly currentRoutes: () => Routes;
  readonly access: Pick<AccessControl, "isRestricting">;
  readonly clientAddress: Pick<SwitchableClientAddress, "isTrustedProxy">;
  readonly limits: Pick<ConnectionLimits, "connectionOf">;
  readonly log: Logger;
  readonly metrics: Metrics;
}

interface Watchable {
  readonly server: Server;
  readonly ending: () => string;
}

/**
 * Responds to repeated request heads without parsing them again.
 *
 * Node's `http` takes about 8 µs of CPU time to parse a request and to send its response: two fifths
 * of the cost of a manifest in memory. This class keeps the bytes of a head with the result of Node's
 * parser. If the same bytes arrive again between two messages, it calls the mirror directly. It
 * parses nothing: bytes are equal to some that the parser has accepted, or they go to the parser.
 *
 * The response is never kept: routing, access and freshness are decided for each request, and a
 * manifest that is not in memory takes the ordinary path. The response has the bytes that Node would
 * have sent, and is counted and logged in the same way.
 *
 * A connection is watched after its first manifest from memory. Only public parts of Node are used:
 * its `data` listener is removed from the socket and called from here. TLS servers are not watched.
 * See "Why `/v2` bypasses fastify, and the fast path" in `src/README.md`.
 */
export class RepeatedHeads {
  readonly #options: RepeatedHeadsOptions;
  readonly #logRequest: (record: RequestRecord) => void;
  readonly #heads = new LRUCache<string, ReadHead>({
    maxSize: MAX_KEPT_BYTES,
    sizeCalculation: ({ request }, bytes) =>
      bytes.length + request.bodyBytes + ENTRY_OVERHEAD_BYTES,
  });
  /** Open connections that are not watched yet. */
  readonly #watchable = new WeakMap<Socket, Watchable>();
  /** The watched connection whose bytes Node's parser is reading now. */
  #reading: WatchedConnection | undefined;

  constructor(options: RepeatedHeadsOptions) {
    this.#options = options;
    this.#logRequest = createRequestLog(options.log);
  }

  /** @param server a plain HTTP server whose connections are already limited */
  watch(server: Server): void {
    const ending = createEnding(server);
    server.on("connection", (socket: Socket) => {
      this.#watchable.set(socket, { server, ending });
    });
    server.prependListener("request", (request, response) => {
      this.#reading?.begin(request, response);
    });
  }

  /** Remembers the head of a request that was answered with a manifest from memory. */
  noteRecalled({ request, response, requested, isHead, exchange }: Call): void {
    const { target } = requested.path;
    if (target.kind !== "manifest" || !hasOrdinaryHeaders(request)) return;
    if (this.#reading === undefined) {
      const { socket } = request;
      // Later, because the parser is reading now.
      response.on("close", () => this.#startWatching(socket));
      return;
    }
    const { method, url, headers } = request;
    const logged = { method, url, userAgent: headers["user-agent"] };
    const head = new ReadHead({
      target: requested,
      repository: target.repository,
      reference: target.reference,
      host: headers.host,
      isHead,
      logged,
      bodyBytes: exchange.sentBytes,
    });
    this.#reading.noteRecalled(response, head);
  }

  /** Started late, because a parsed request costs a quarter more on a watched connection. */
  #startWatching(socket: Socket): void {
    const watchable = this.#watchable.get(socket);
    const client = canonicalAddress(socket.remoteAddress);
    if (watchable === undefined || this.#isAlwaysParsed(client)) return;
    this.#watchable.delete(socket);
    const [listener] = socket.listeners("data");
    // A version of Node without this listener: do not watch.
    if (listener === undefined) return;
    const nodeListener = listener as (chunk: Buffer) => void;
    const { server, ending } = watchable;
    const connection = new WatchedConnection({
      socket,
      server,
      place: this.#options.limits.connectionOf(socket),
      maxRequests: server.maxRequestsPerSocket || Infinity,
      passToNode: (chunk) => {
        this.#reading = connection;
        try {
          nodeListener.call(socket, chunk);
        } finally {
          this.#reading = undefined;
        }
      },
      find: (chunk) => this.#find(chunk, client, ending),
      remember: (chunk, head) => this.#remember(chunk, head),
    });
    socket.off("data", nodeListener);
    socket.on("data", connection.take);
  }

  /** The client is identified by other headers. May change with the configuration. */
  #isAlwaysParsed(client: string): boolean {
    const { access, clientAddress } = this.#options;
    return access.isRestricting || clientAddress.isTrustedProxy(client);
  }

  #remember(chunk: Buffer, head: ReadHead): void {
    const key = keyOf(chunk);
    if (key === undefined || head.request.bodyBytes > MAX_BODY_BYTES) return;
    this.#heads.set(key, head);
  }

  #find(
    chunk: Buffer,
    client: string,
    ending: () => string,
  ): FoundAnswer | undefined {
    const key = keyOf(chunk);
    const head = key === undefined ? undefined : this.#heads.get(key);
    if (head === undefined) return undefined;
    if (this.#isAlwaysParsed(client)) return undefined;
    const { currentRoutes } = this.#options;
    const { target, host, repository } = head.request;
    const routed = target.route(currentRoutes(), host, repository);
    if (!routed.ok) return undefined;
    return routed.kind === "hosted"
      ? this.#findHosted(head, routed, client, ending)
      : this.#findMirrored(head, routed, client, ending);
  }

  #findMirrored(
    head: ReadHead,
    routed: RoutedRepository,
    client: string,
    ending: () => string,
  ): FoundAnswer | undefined {
    const { reference, isHead, bodyBytes } = head.request;
    const { mirror } = this.#options;
    const manifest = mirror.recallManifest(targetOf(routed), reference, isHead);
    if (manifest === undefined) return undefined;
    const sentBytes = isHead ? 0 : manifest.bytes.length;
    // Parsed and remembered again, with the larger size.
    if (sentBytes > bodyBytes) return undefined;
    const exchange = this.#exchangeOf(head, client, sentBytes);
    exchange.upstream = routed.upstream.name;
    exchange.template = routed.upstream.template;
    exchange.repository = routed.repository;
    exchange.cache = manifest.status;
    return {
      text: head.answer(routed, manifest, ending()),
      report: this.#reportOf(head, exchange),
    };
  }

  /** Asks the index for the digest of a hosted tag, so that a push or a deletion is in effect. */
  #findHosted(
    head: ReadHead,
    routed: RoutedHosted,
    client: string,
    ending: () => string,
  ): FoundAnswer | undefined {
    const { hosted } = this.#options;
    const { reference, isHead, bodyBytes, logged, host } = head.request;
    const sender = {
      user: undefined,
      client,
      userAgent: logged.userAgent,
      host,
      method: logged.method ?? "",
    };
    const manifest = hosted?.recall(
      routed,
      reference,
      { isHead, maxBytes: bodyBytes },
      sender,
    );
    if (manifest === undefined) return undefined;
    const sentBytes = isHead ? 0 : manifest.bytes.length;
    const exchange = this.#exchangeOf(head, client, sentBytes);
    exchange.hosted = routed.hosted.name;
    exchange.repository = routed.repository;
    return {
      text: head.answerHosted(routed, manifest, ending()),
      report: this.#reportOf(head, exchange),
    };
  }

  #exchangeOf(
    { request: { target } }: ReadHead,
    client: string,
    sentBytes: number,
  ): Exchange {
    const exchange = new Exchange();
    exchange.client = client;
    exchange.kind = target.kind;
    exchange.reference = target.reference;
    exchange.sentBytes = sentBytes;
    return exchange;
  }

  #reportOf(
    { request: { logged } }: ReadHead,
    exchange: Exchange,
  ): FoundAnswer["report"] {
    const { metrics } = this.#options;
    return (isWhole) =>
      exchange.report(logged, 200, isWhole, this.#logRequest, metrics);
  }
}

/** One character for each byte. */
function keyOf(chunk: Buffer): string | undefined {
  return chunk.length > MAX_HEAD_BYTES ? undefined : chunk.toString("latin1");
}

function hasOrdinaryHeaders({ headers }: IncomingMessage): boolean {
  return Object.keys(headers).every((name) => ORDINARY_HEADERS.has(name));
}

/** The headers that Node adds to a response on a kept connection; built once a second. */
function createEnding(server: Server): () => string {
  let second = Number.NaN;
  let text = "";
  return () => {
    const nowMs = Date.now();
    const nowSecond = Math.floor(nowMs / 1000);
    if (nowSecond !== second) {
      second = nowSecond;
      const timeoutSeconds = Math.floor(server.keepAliveTimeout / 1000);
      const max = server.maxRequestsPerSocket;
      text =
        `Date: ${new Date(nowMs).toUTCString()}\r\nConnection: keep-alive\r\n` +
        `Keep-Alive: timeout=${timeoutSeconds}${max ? `, max=${max}` : ""}\r\n\r\n`;
    }
    return text;
  };
}
