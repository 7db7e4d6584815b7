import type { OutgoingHttpHeaders, ServerResponse } from "node:http";
import { type RegistryError, registryErrorBody } from "../oci/errors.ts";
import { type Body, BrokenBody } from "../mirror/body.ts";
import type { CacheStatus } from "../telemetry/cache-status.ts";
import type { Exchange } from "./exchange.ts";

/** A client that takes nothing for so long is cut off. */
const NO_PROGRESS_MS = 120_000;

/** Engines show this text to their users. */
const STALE_WARNING = '299 - "entrepot: stale, upstream unavailable"';

/** On every answer of the registry API. */
export const COMMON_HEADERS: Readonly<OutgoingHttpHeaders> = {
  "Docker-Distribution-API-Version": "registry/2.0",
  "X-Content-Type-Options": "nosniff",
  // What somebody published may be a page: opened in a browser it is text that can do nothing.
  "Content-Security-Policy": "default-src 'none'; sandbox",
};

/** Sends a small answer whole; a HEAD gets the same headers and no body. */
export function sendBytes(
  response: ServerResponse,
  exchange: Exchange,
  status: number,
  headers: OutgoingHttpHeaders,
  bytes: Buffer | string,
  isHead: boolean,
): void {
  const length = Buffer.byteLength(bytes);
  response.writeHead(status, {
    ...COMMON_HEADERS,
    ...headers,
    "Content-Length": length,
  });
  if (isHead) {
    response.end();
    return;
  }
  exchange.sentBytes = length;
  response.end(bytes);
}

/** Sends headers alone: 304, and HEAD of what has no bytes at hand. */
export function sendHeaders(
  response: ServerResponse,
  status: number,
  headers: OutgoingHttpHeaders,
): void {
  response.writeHead(status, { ...COMMON_HEADERS, ...headers });
  response.end();
}

/** Of what comes from the cache. */
export function agingHeaders({
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

/** Sends an error in the specification's form. */
export function sendError(
  response: ServerResponse,
  exchange: Exchange,
  error: RegistryError,
  cache: CacheStatus | undefined,
  headers: OutgoingHttpHeaders,
  isHead: boolean,
): void {
  const { retryAfterMs } = error;
  sendBytes(
    response,
    exchange,
    error.status,
    {
      "Content-Type": "application/json",
      ...(cache === undefined ? {} : { "Cache-Status": cache.text }),
      ...(retryAfterMs === undefined
        ? {}
        : { "Retry-After": Math.max(1, Math.ceil(retryAfterMs / 1000)) }),
      ...headers,
    },
    registryErrorBody(error.code, error.message, error.detail),
    isHead,
  );
}

/**
 * Sends a body at the client's pace, one part at a time: the next is read only when the last one
 * has left. It is never longer or shorter than `lengthBytes`: what does not fit ends the
 * connection, so that the client sees a cut and not the next answer's bytes.
 *
 * @param lengthBytes undefined: sent chunked, and ended only when the body ends well
 * @param noProgressMs a client that takes nothing for so long is cut off
 */
export async function sendBody(
  response: ServerResponse,
  exchange: Exchange,
  body: Body,
  lengthBytes: number | undefined,
  noProgressMs: number = NO_PROGRESS_MS,
): Promise<void> {
  const connection = new PacedWriter(response, noProgressMs, () =>
    body.close(),
  );
  try {
    for (;;) {
      const parts = await body.read();
      if (connection.isClosed) return;
      if (parts === undefined) break;
      const size = parts.reduce((sum, part) => sum + part.length, 0);
      if (
        lengthBytes !== undefined &&
        exchange.sentBytes + size > lengthBytes
      ) {
        throw new BrokenBody("the body is longer than announced");
      }
      exchange.sentBytes += size;
      await connection.write(parts);
      if (connection.isClosed) return;
    }
    if (lengthBytes !== undefined && exchange.sentBytes !== lengthBytes) {
      throw new BrokenBody("the body is shorter than announced");
    }
    response.end();
  } catch (error) {
    exchange.error = error;
    endEarly(response);
  } finally {
    body.close();
  }
}

/**
 * Ends the connection before the announced length, by FIN after what was written: containerd
 * resumes then, while a reset fails its pull.
 */
export function endEarly(response: ServerResponse): void {
  const { socket } = response;
  if (socket === null) response.destroy();
  else socket.destroySoon();
}

/** Writes that wait until the connection has taken them, for as long as it takes anything. */
class PacedWriter {
  readonly #response: ServerResponse;
  #isClosed = false;
  #onSettled: (() => void) | undefined;

  constructor(
    response: ServerResponse,
    noProgressMs: number,
    onClose: () => void,
  ) {
    this.#response = response;
    if (response.destroyed) {
      onClose();
      return;
    }
    response.once("close", () => {
      this.#isClosed = true;
      this.#onSettled?.();
      onClose();
    });
    // Node restarts the time whenever the kernel takes bytes; a pause of the upstream is no fault of the client.
    response.setTimeout(noProgressMs, () => {
      if (this.#onSettled !== undefined) response.destroy();
    });
  }

  /** Writes that fail come back before the close is told: nothing is read for them any more. */
  get isClosed(): boolean {
    return this.#isClosed || this.#response.destroyed;
  }

  /** Resolves when the parts may be overwritten: they are with the kernel, or nobody wants them. */
  write(parts: readonly Uint8Array[]): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onSettled = () => {
      this.#onSettled = undefined;
      resolve();
    };
    const settle = this.#onSettled;
    const response = this.#response;
    if (parts.length > 1) response.cork();
    for (let i = 0; i < parts.length - 1; i++) response.write(parts[i]);
    response.write(parts.at(-1) ?? EMPTY, settle);
    if (parts.length > 1) response.uncork();
    return promise;
  }
}

const EMPTY = Buffer.alloc(0);
