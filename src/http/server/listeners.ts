import {
  createServer,
  type RequestListener,
  type Server,
  type ServerOptions,
} from "node:http";
import { lookup } from "node:dns/promises";
import { type AddressInfo, isIP } from "node:net";
import type { ListenAddress } from "../../config/config.ts";
import { ListenError } from "./listen-error.ts";
import { answerClientErrors } from "./client-errors.ts";

/**
 * Bounds on what a client may send. Engines keep idle connections for up to 120 s: one that is
 * closed earlier shows as an error in the middle of a pull.
 */
const SERVER_OPTIONS = {
  keepAliveTimeout: 130_000,
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  connectionsCheckingInterval: 5_000,
  // podman asks for up to 1 024 ranges at once.
  maxHeaderSize: 32 * 1024,
  insecureHTTPParser: false,
  // Node's own 400 has no body; the routes look themselves.
  requireHostHeader: false,
};

/**
 * A client that waits for leave to send a body has the answer at once, and need not send it; Node
 * would tell it to go on, and answer an unknown expectation by a 417 of its own.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
 */
const EXPECTATIONS = ["checkContinue", "checkExpectation"] as const;

const MAX_REQUESTS_PER_SOCKET = 10_000;

const IDLE_SWEEP_MS = 50;

/** A start ends within 2 s, whatever the name server does. */
const LOOKUP_MS = 1_500;

/** Makes a server that does not listen yet: of plain HTTP, or with TLS. */
export type CreateServer = (
  options: ServerOptions,
  listener: RequestListener,
) => Server;

/** Sockets that listen for one API. */
export class Listeners {
  readonly #servers: readonly Server[];
  readonly #addresses: readonly ListenAddress[];

  constructor(
    addresses: readonly ListenAddress[],
    listener: RequestListener,
    create: CreateServer = createServer,
  ) {
    this.#addresses = addresses;
    this.#servers = addresses.map(() => {
      const server = create(SERVER_OPTIONS, listener);
      server.maxRequestsPerSocket = MAX_REQUESTS_PER_SOCKET;
      answerClientErrors(server);
      for (const event of EXPECTATIONS) {
        server.on(event, (...asked) => server.emit("request", ...asked));
      }
      return server;
    });
  }

  /**
   * @param key of the configuration that the addresses come from
   * @returns `host:port` of each, with the port that port 0 became
   * @throws ListenError
   */
  async listen(key: string): Promise<string[]> {
    try {
      return await Promise.all(
        this.#servers.map(async (server, i) => {
          const address = this.#addresses[i] ?? { host: "", port: 0 };
          try {
            return await listenOn(server, address);
          } catch (error) {
            const place = this.#servers.length > 1 ? `${key}[${i}]` : key;
            throw new ListenError(place, address, error);
          }
        }),
      );
    } catch (error) {
      await this.close(0);
      throw error;
    }
  }

  /** Takes no new connection, ends the idle ones, waits for the rest up to a bound, then cuts them. */
  async close(graceMs: number): Promise<void> {
    await Promise.all(
      this.#servers.map((server) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        const cut = setTimeout(() => server.closeAllConnections(), graceMs);
        // A connection whose last answer is out would be kept for the next one.
        const sweep = setInterval(
          () => server.closeIdleConnections(),
          IDLE_SWEEP_MS,
        );
        server.close(() => {
          clearTimeout(cut);
          clearInterval(sweep);
          resolve();
        });
        return promise;
      }),
    );
  }
}

/** @throws the system's error */
async function listenOn(
  server: Server,
  { host, port }: ListenAddress,
): Promise<string> {
  const address = isIP(host) === 0 ? await addressOf(host) : host;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  server.once("error", reject);
  server.listen({ host: address, port }, () => {
    server.off("error", reject);
    resolve(text(server.address()));
  });
  return promise;
}

/** The first address of a name, as Node itself would take it, but in bounded time. */
async function addressOf(host: string): Promise<string> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () =>
      late.reject(
        Object.assign(new Error(`${host} did not resolve in time`), {
          code: "ETIMEDOUT",
        }),
      ),
    LOOKUP_MS,
  );
  try {
    return (await Promise.race([lookup(host), late.promise])).address;
  } finally {
    clearTimeout(timer);
  }
}

function text(address: AddressInfo | string | null): string {
  if (address === null || typeof address === "string") return address ?? "";
  return address.family === "IPv6"
    ? `[${address.address}]:${address.port}`
    : `${address.address}:${address.port}`;
}
