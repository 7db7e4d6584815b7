import type { Server } from "node:http";
import type { Socket } from "node:net";

/**
 * How long a half-closed connection is silent before its client is probed. A client that has only
 * ended its sending acknowledges the probe; one that is gone resets the connection, at the latest
 * when its system has forgotten it (Linux: `tcp_fin_timeout`, 60 s).
 */
const PROBE_AFTER_MS = 15_000;

/**
 * Lets a client end its sending after its request and still receive the whole answer. By itself
 * Node takes that for the end of the connection, and answers nothing that is not ready by then.
 *
 * A client that is gone looks the same until a byte is written to it. Where the answer waits for
 * an upstream, TCP's own probes find it.
 */
export function keepHalfOpen(server: Server): void {
  // The switch of Node's http, which has had it since its first versions and does not document it.
  Object.assign(server, { httpAllowHalfOpen: true });
  server.on("connection", probeOnceHalfOpen);
  server.on("secureConnection", (socket: Socket) => {
    // Not before: a client that ends its sending in the handshake has nothing to wait for.
    socket.allowHalfOpen = true;
    probeOnceHalfOpen(socket);
  });
}

function probeOnceHalfOpen(socket: Socket): void {
  socket.once("end", () => {
    if (!socket.destroyed) socket.setKeepAlive(true, PROBE_AFTER_MS);
  });
}
