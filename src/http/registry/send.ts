import type { IncomingMessage, ServerResponse } from "node:http";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type RegistryError, registryErrorBody } from "../../oci/errors.ts";
import { type Body, BrokenBody } from "../../bodies/body.ts";
import type { CacheStatus } from "../../telemetry/cache-status.ts";
import type { Exchange } from "./exchange.ts";
import { endAfterBody } from "./unread-body.ts";
import { socketDescriptor } from "../fast-path/socket-descriptor.ts";

/** A connection whose client accepts no bytes for this time is closed. */
const NO_PROGRESS_MS = 120_000;

/** Sent by one system call: it takes a tenth of a millisecond, which blocks other requests. */
const DIRECT_BYTES = 512 * 1024;

/** From this size the head is flushed first, so that the kernel can send the whole body. */
const DIRECT_FROM_BYTES = 64 * 1024;

/** Engines show this text to their users. */
const STALE_WARNING = '299 - "entrepot: stale, upstream unavailable"';

/**
 * Names and values in turn, the cheapest form for `writeHead`. Building an object with optional
 * headers costs about 3 µs.
 */
export type Head = (string | number)[];

/** Returns the headers of every response of the registry API. */
export function beginHead(mediaType: string): Head {
  return [
    "Docker-Distribution-API-Version",
    "registry/2.0",
    "X-Content-Type-Options",
    "nosniff",
    // Published content may be a web page: a browser must not run its scripts.
    "Content-Security-Policy",
    "default-src 'none'; sandbox",
    "Content-Type",
    mediaType,
  ];
}

/** Adds `Cache-Status`, the age of cached content, and the warning about stale content. */
export function addCacheStatus(
  head: Head,
  status: CacheStatus,
  ageMs: number | undefined,
  isStale: boolean,
): void {
  head.push("Cache-Status", status.text);
  if (ageMs !== undefined) {
    head.push("Age", Math.max(0, Math.floor(ageMs / 1000)));
  }
  if (isStale) head.push("Warning", STALE_WARNING);
}

/**
 * Sends a small response in one write; HEAD gets the same headers without a body.
 *
 * @param encoding of `bytes` if it is a string
 */
export function sendBytes(
  response: ServerResponse,
  exchange: Exchange,
  status: number,
  head: Head,
  bytes: Buffer | string,
  isHead: boolean,
  encoding: "utf8" | "latin1" = "utf8",
): void {
  const length = Buffer.byteLength(bytes, encoding);
  head.push("Content-Length", length);
  response.writeHead(status, head);
  if (isHead) {
    response.end();
    return;
  }
  exchange.sentBytes = length;
  response.end(bytes, encoding);
}

/** Sends headers only: 304, and HEAD of content that is not in memory. */
export function sendHead(
  response: ServerResponse,
  status: number,
  head: Head,
): void {
  response.writeHead(status, head);
  response.end();
}

/**
 * Sends an error in the form of the specification.
 *
 * @param extra further headers
 * @param unread the request, if its body was not read: the connection stays open while the client
 *   sends it, because a client that cannot write does not read the response
 */
export function sendError(
  response: ServerResponse,
  exchange: Exchange,
  error: RegistryError,
  cache: CacheStatus | undefined,
  extra: Head,
  isHead: boolean,
  unread: IncomingMessage | undefined,
): void {
  const { retryAfterMs } = error;
  const head = beginHead("application/json");
  if (cache !== undefined) head.push("Cache-Status", cache.text);
  if (retryAfterMs !== undefined) {
    head.push("Retry-After", Math.max(1, Math.ceil(retryAfterMs / 1000)));
  }
  head.push(...extra);
  const body = registryErrorBody(error.code, error.message, error.detail);
  if (unread === undefined || isHead) {
    sendBytes(response, exchange, error.status, head, body, isHead);
    return;
  }
  const bytes = Buffer.from(body);
  head.push("Content-Length", bytes.length);
  response.writeHead(error.status, head);
  exchange.sentBytes = bytes.length;
  endAfterBody(unread, response, bytes);
}

/**
 * Sends a body at the client's pace, one part at a time: the next part is read when the previous one
 * has left. If the body is longer or shorter than `lengthBytes`, the connection is closed, so that
 * the client sees a short read and not the bytes of the next response.
 *
 * @param lengthBytes undefined: sent chunked, and ended only if the body ends without an error
 * @param noProgressMs closes the connection if the client accepts no bytes for this time
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
    if (
      lengthBytes !== undefined &&
      lengthBytes >= DIRECT_FROM_BYTES &&
      body.sendTo !== undefined &&
      connection.descriptor !== undefined
    ) {
      response.flushHeaders();
      await sendDirectly(connection, exchange, body, lengthBytes);
    }
    for (;;) {
      if (connection.isClosed) return;
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
      if (lengthBytes !== undefined) {
        await sendDirectly(connection, exchange, body, lengthBytes);
      }
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

/** Sends by `sendfile` as far as possible; the rest of the body is read and written. */
async function sendDirectly(
  connection: PacedWriter,
  exchange: Exchange,
  body: Body,
  lengthBytes: number,
): Promise<void> {
  for (;;) {
    const socket = connection.descriptor;
    if (socket === undefined) return;
    const maxBytes = Math.min(DIRECT_BYTES, lengthBytes - exchange.sentBytes);
    const sent = body.sendTo?.(socket, maxBytes) ?? 0;
    if (sent === 0) return;
    exchange.sentBytes += sent;
    await nextTurn();
  }
}

/**
 * Closes the connection before the announced length, by FIN after the written bytes: containerd
 * resumes then, but fails the pull after a reset.
 */
function endEarly(response: ServerResponse): void {
  const { socket } = response;
  if (socket === null) response.destroy();
  else socket.destroySoon();
}

/** Writes to a response, and waits for each write until the kernel has accepted it. */
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
    // Node restarts the timer when the kernel accepts bytes. A pause of the upstream is not counted.
    response.setTimeout(noProgressMs, () => {
      if (this.#onSettled !== undefined) response.destroy();
    });
  }

  /** True also between a failed write and the `close` event: nothing is read any more. */
  get isClosed(): boolean {
    return this.#isClosed || this.#response.destroyed;
  }

  /** For writes that bypass the stream; valid until the next `await`. */
  get descriptor(): number | undefined {
    const { socket } = this.#response;
    return this.isClosed || socket === null
      ? undefined
      : socketDescriptor(socket);
  }

  /** Resolves when the parts may be overwritten: the kernel has them, or the connection is closed. */
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
