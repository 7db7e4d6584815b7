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
 * Limits of what a client may send. Engines keep idle connections for up to 120 s: if the server
 * closes one earlier, a pull may fail in the middle.
 */
const SERVER_OPTIONS = {
  keepAliveTimeout: 130_000,
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  connectionsCheckingInterval: 5_000,
  // podman requests up to 1 024 ranges in one header.
  maxHeaderSize: 32 * 1024,
  insecureHTTPParser: false,
  // Node's own 400 has no body; the routes check the header themselves.
  requireHostHeader: false,
};

/**
 * A client that sends `Expect` gets the final response immediately and need not send its body. Node
 * would send 100, or its own 417 for an unknown expectation.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
 */
const EXPECTATIONS = ["checkContinue", "checkExpectation"] as const;

const MAX_REQUESTS_PER_SOCKET = 10_000;

const IDLE_SWEEP_MS = 50;

/** Bounds the start if the name server does not respond. */
const LOOKUP_MS = 1_500;

/** Creates a server, with or without TLS, that does not listen yet. */
export type CreateServer = (
  options: ServerOptions,
  listener: RequestListener,
) => Server;

/** The listening sockets of one API. */
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
        server.on(event, (...exchange) => server.emit("request", ...exchange));
      }
      return server;
    });
  }

  /**
   * @param key the configuration key of the addresses
   * @returns `host:port` of each; port 0 is replaced by the actual port
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

  /** Stops listening, closes idle connections, and closes busy ones after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    await Promise.all(
      this.#servers.map((server) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        const cut = setTimeout(() => server.closeAllConnections(), graceMs);
        // A connection whose last response has ended would be kept open.
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

/** @throws Error of the system */
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

/** Returns the first address of a name, as Node would use it, in bounded time. */
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
