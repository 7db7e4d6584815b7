import type { Server } from "node:http";
import type { Socket } from "node:net";

/** How often a half-closed connection with a pending response is probed. */
const PROBE_EVERY_MS = 15_000;

/**
 * Lets a client end its sending side after the request and still receive the whole response. By
 * default Node closes such a connection, and drops every response that is not ready.
 *
 * A client that is gone is not distinguishable until bytes are written to it. While the response
 * waits for an upstream, TCP keep-alive probes detect it: a client that has only ended its sending
 * acknowledges them; otherwise the connection is reset, at the latest when the client's system has
 * dropped it (Linux: `tcp_fin_timeout`, 60 s).
 *
 * @param acceptedOf returns the accepted connection below a TLS one; the same one without TLS
 * @param probeEveryMs for tests
 */
export function keepHalfOpen(
  server: Server,
  acceptedOf: (socket: Socket) => Socket,
  probeEveryMs = PROBE_EVERY_MS,
): void {
  // An option of Node's http that is not documented, but has been there since the first versions.
  Object.assign(server, { httpAllowHalfOpen: true });
  const probe = (socket: Socket): void => {
    socket.once("end", () => probeHalfOpen(acceptedOf(socket), probeEveryMs));
  };
  server.on("connection", probe);
  server.on("secureConnection", (socket: Socket) => {
    // Set after the handshake: a client that ends its sending during it waits for no response.
    socket.allowHalfOpen = true;
    probe(socket);
  });
}

function probeHalfOpen(socket: Socket, everyMs: number): void {
  if (socket.destroyed) return;
  socket.setKeepAlive(true, everyMs);
  // Node does not poll a connection that it has read to the end: an empty write reports the reset.
  const timer = setInterval(() => {
    if (socket.writable && socket.writableLength === 0) socket.write("");
  }, everyMs).unref();
  socket.once("close", () => clearInterval(timer));
}
