import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";
import { LRUCache } from "lru-cache";
import type { Mirror } from "../../mirror/mirror.ts";
import type { UpstreamRoutes } from "../../mirror/upstream-routes.ts";
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
import { Exchange } from "../registry/exchange.ts";
import { ReadHead } from "./read-head.ts";
import { type FoundAnswer, WatchedConnection } from "./watched-connection.ts";

/** Longer ones are of a kind that few repeat. */
const MAX_HEAD_BYTES = 2_048;
/** Of larger bodies the bytes are the cost, not the head. */
const MAX_BODY_BYTES = 16 * 1024;
/** Of heads, and of the answers that were made for them last. */
const MAX_KEPT_BYTES = 4 * 1024 * 1024;
/** Objects, and an answer's headers. */
const ENTRY_OVERHEAD_BYTES = 2_048;

/**
 * Headers that make no difference to a manifest, but for `Host`, which is remembered. A head with
 * any other is always read: it may say who asks, what is there already, or what comes behind it.
 */
const ORDINARY_HEADERS = new Set([
  "host",
  "user-agent",
  "accept",
  "accept-encoding",
]);

export interface RepeatedHeadsOptions {
  readonly mirror: Pick<Mirror, "recallManifest">;
  readonly currentRoutes: () => UpstreamRoutes;
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
 * A head that was read before is not read again.
 *
 * To read a request and to send its answer takes Node's `http` some 8 µs of the processor, two fifths
 * of what a manifest in memory costs. So the bytes of a head are remembered, with what Node's parser
 * made of them; when the same bytes come again between two messages, the mirror is asked at once.
 * Nothing is parsed here: bytes are the same as some that the parser has judged, or they go to the
 * parser.
 *
 * Never remembered is the answer: what may be had, by whom, from where and how fresh it is decided
 * each time, and whatever is not in memory goes the ordinary way. The answer is the one that Node
 * would have sent, and is counted and logged the same.
 *
 * A connection is watched from the first manifest on that was in memory. All that is used of Node is
 * public: its listener for the connection's bytes is taken off, and called. A server with TLS is
 * left alone.
 */
export class RepeatedHeads {
  readonly #options: RepeatedHeadsOptions;
  readonly #logRequest: (record: RequestRecord) => void;
  readonly #heads = new LRUCache<string, ReadHead>({
    maxSize: MAX_KEPT_BYTES,
    sizeCalculation: ({ request }, bytes) =>
      bytes.length + request.bodyBytes + ENTRY_OVERHEAD_BYTES,
  });
  /** Open connections whose bytes go to Node's parser by themselves. */
  readonly #watchable = new WeakMap<Socket, Watchable>();
  /** The watched one whose bytes Node's parser has now. */
  #reading: WatchedConnection | undefined;

  constructor(options: RepeatedHeadsOptions) {
    this.#options = options;
    this.#logRequest = createRequestLog(options.log);
  }

  /** @param server of plain HTTP, whose connections are bounded already */
  watch(server: Server): void {
    const ending = createEnding(server);
    server.on("connection", (socket: Socket) => {
      this.#watchable.set(socket, { server, ending });
    });
    server.prependListener("request", (request, response) => {
      this.#reading?.begin(request, response);
    });
  }

  /** A manifest was in memory, and is sent. */
  noteRecalled({ request, response, asked, isHead, exchange }: Call): void {
    const { target } = asked.path;
    if (target.kind !== "manifest" || !isOrdinary(request)) return;
    if (this.#reading === undefined) {
      const { socket } = request;
      // Not while the parser has its bytes.
      response.on("close", () => this.#stepBetween(socket));
      return;
    }
    const { method, url, headers } = request;
    const told = { method, url, userAgent: headers["user-agent"] };
    const head = new ReadHead({
      asked,
      repository: target.repository,
      reference: target.reference,
      host: headers.host,
      isHead,
      told,
      bodyBytes: exchange.sentBytes,
    });
    this.#reading.noteRecalled(response, head);
  }

  /** Not before: each request that is read costs a quarter more where somebody stands between. */
  #stepBetween(socket: Socket): void {
    const watchable = this.#watchable.get(socket);
    const client = canonicalAddress(socket.remoteAddress);
    if (watchable === undefined || this.#isAlwaysRead(client)) return;
    this.#watchable.delete(socket);
    const [listener] = socket.listeners("data");
    // A Node that goes about it in another way.
    if (listener === undefined) return;
    const nodes = listener as (chunk: Buffer) => void;
    const { server, ending } = watchable;
    const connection = new WatchedConnection({
      socket,
      server,
      place: this.#options.limits.connectionOf(socket),
      maxRequests: server.maxRequestsPerSocket || Infinity,
      giveToNode: (chunk) => {
        this.#reading = connection;
        try {
          nodes.call(socket, chunk);
        } finally {
          this.#reading = undefined;
        }
      },
      find: (chunk) => this.#find(chunk, client, ending),
      remember: (chunk, head) => this.#remember(chunk, head),
    });
    socket.off("data", nodes);
    socket.on("data", connection.take);
  }

  /** Who asks is told by the head. May change with the configuration. */
  #isAlwaysRead(client: string): boolean {
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
    if (this.#isAlwaysRead(client)) return undefined;
    const { mirror, currentRoutes, metrics } = this.#options;
    const exchange = new Exchange();
    const { asked, host, repository, reference, isHead, told, bodyBytes } =
      head.request;
    const routed = asked.route(currentRoutes(), host, repository);
    if (!routed.ok) return undefined;
    const manifest = mirror.recallManifest(targetOf(routed), reference, isHead);
    if (manifest === undefined) return undefined;
    const sentBytes = isHead ? 0 : manifest.bytes.length;
    // Remembered anew, with what it counts for now.
    if (sentBytes > bodyBytes) return undefined;
    exchange.client = client;
    exchange.kind = asked.kind;
    exchange.upstream = routed.upstream.name;
    exchange.template = routed.upstream.template;
    exchange.repository = routed.repository;
    exchange.reference = asked.reference;
    exchange.cache = manifest.status;
    exchange.sentBytes = sentBytes;
    return {
      text: head.answer(routed, manifest, ending()),
      report: (isWhole) =>
        exchange.report(told, 200, isWhole, this.#logRequest, metrics),
    };
  }
}

/** A character for each byte. */
function keyOf(chunk: Buffer): string | undefined {
  return chunk.length > MAX_HEAD_BYTES ? undefined : chunk.toString("latin1");
}

function isOrdinary({ headers }: IncomingMessage): boolean {
  return Object.keys(headers).every((name) => ORDINARY_HEADERS.has(name));
}

/** What Node adds to a head whose connection is kept: made once a second. */
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
