import type { ServerResponse } from "node:http";
import { setImmediate as othersTurn } from "node:timers/promises";
import { type RegistryError, registryErrorBody } from "../../oci/errors.ts";
import { type Body, BrokenBody } from "../../mirror/blobs/body.ts";
import type { CacheStatus } from "../../telemetry/cache-status.ts";
import type { Exchange } from "./exchange.ts";
import { socketDescriptor } from "../fast-path/socket-descriptor.ts";

/** A client that takes nothing for so long is cut off. */
const NO_PROGRESS_MS = 120_000;

/** Handed to a socket in one go: a tenth of a millisecond, in which nobody else is served. */
const DIRECT_BYTES = 512 * 1024;

/** From so many bytes on the head goes by itself, so that all of the body can go in that way. */
const DIRECT_FROM_BYTES = 64 * 1024;

/** Engines show this text to their users. */
const STALE_WARNING = '299 - "entrepot: stale, upstream unavailable"';

/**
 * Names and values by turns: what `writeHead` takes with the least ado. Of an object it costs some
 * 3 µs to put together optional headers.
 */
export type Head = (string | number)[];

/** Begins the head of an answer with what is on every one of the registry API. */
export function beginHead(mediaType: string): Head {
  return [
    "Docker-Distribution-API-Version",
    "registry/2.0",
    "X-Content-Type-Options",
    "nosniff",
    // What somebody published may be a page: opened in a browser it is text that can do nothing.
    "Content-Security-Policy",
    "default-src 'none'; sandbox",
    "Content-Type",
    mediaType,
  ];
}

/** Tells what happened in the cache, and how old it is what comes from there. */
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
 * Sends a small answer whole; a HEAD gets the same headers and no body.
 *
 * @param encoding of a text
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

/** Sends headers alone: 304, and HEAD of what has no bytes at hand. */
export function sendHead(
  response: ServerResponse,
  status: number,
  head: Head,
): void {
  response.writeHead(status, head);
  response.end();
}

/** Sends an error in the specification's form. @param told what it tells beside */
export function sendError(
  response: ServerResponse,
  exchange: Exchange,
  error: RegistryError,
  cache: CacheStatus | undefined,
  told: Head,
  isHead: boolean,
): void {
  const { retryAfterMs } = error;
  const head = beginHead("application/json");
  if (cache !== undefined) head.push("Cache-Status", cache.text);
  if (retryAfterMs !== undefined) {
    head.push("Retry-After", Math.max(1, Math.ceil(retryAfterMs / 1000)));
  }
  head.push(...told);
  const body = registryErrorBody(error.code, error.message, error.detail);
  sendBytes(response, exchange, error.status, head, body, isHead);
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

/** Lets the kernel send what it can without us; what follows is read. */
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
    await othersTurn();
  }
}

/**
 * Ends the connection before the announced length, by FIN after what was written: containerd
 * resumes then, while a reset fails its pull.
 */
function endEarly(response: ServerResponse): void {
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

  /** For bytes past the stream; good until anything else is awaited. */
  get descriptor(): number | undefined {
    const { socket } = this.#response;
    return this.isClosed || socket === null
      ? undefined
      : socketDescriptor(socket);
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
