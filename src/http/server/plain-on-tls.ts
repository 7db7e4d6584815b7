import type { Server } from "node:https";
import type { Socket } from "node:net";
import { peerOf } from "./connection-limits.ts";

const SENTENCE =
  "This port speaks TLS only: use https:// and not http:// in the client's configuration.\n";

/** A plain HTTP response: the client does not speak TLS. */
const ANSWER =
  "HTTP/1.1 400 Bad Request\r\n" +
  "Content-Type: text/plain; charset=utf-8\r\n" +
  `Content-Length: ${Buffer.byteLength(SENTENCE)}\r\n` +
  `Connection: close\r\n\r\n${SENTENCE}`;

/**
 * Answers a plain HTTP request that arrives instead of a TLS handshake with a sentence, over plain
 * HTTP, so that engines print it. Every connection whose handshake fails is closed immediately.
 */
export function answerPlainRequests(server: Server): void {
  /** Connections in a handshake; the connection limit bounds their number. */
  const pending = new Map<string, Socket>();
  server.on("connection", (socket: Socket) => {
    const peer = peerOf(socket);
    pending.set(peer, socket);
    socket.once("close", () => {
      if (pending.get(peer) === socket) pending.delete(peer);
    });
  });
  server.on("secureConnection", (socket) => {
    pending.delete(peerOf(socket));
  });
  server.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
    if (error.code === "ERR_SSL_HTTP_REQUEST") {
      // Bypasses the TLS stream. The kernel accepts so few bytes before the connection is closed.
      pending.get(peerOf(socket))?.write(ANSWER);
    }
    socket.destroy();
  });
}
