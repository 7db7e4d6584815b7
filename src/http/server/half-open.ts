import type { Server } from "node:http";
import type { Socket } from "node:net";

/** How often a half-closed connection whose answer is still due is looked at. */
const PROBE_EVERY_MS = 15_000;

/**
 * Lets a client end its sending after its request and still receive the whole answer. By itself
 * Node takes that for the end of the connection, and answers nothing that is not ready by then.
 *
 * A client that is gone looks the same until something is written to it. Where the answer waits for
 * an upstream, TCP's own probes find it: a client that has only ended its sending acknowledges
 * them, another one resets the connection, at the latest when its system has forgotten it (Linux:
 * `tcp_fin_timeout`, 60 s).
 *
 * @param acceptedOf the accepted connection below a TLS one; the same where there is no TLS
 * @param probeEveryMs for tests
 */
export function keepHalfOpen(
  server: Server,
  acceptedOf: (socket: Socket) => Socket,
  probeEveryMs = PROBE_EVERY_MS,
): void {
  // The switch of Node's http, which has had it since its first versions and does not document it.
  Object.assign(server, { httpAllowHalfOpen: true });
  const probe = (socket: Socket): void => {
    socket.once("end", () => probeHalfOpen(acceptedOf(socket), probeEveryMs));
  };
  server.on("connection", probe);
  server.on("secureConnection", (socket: Socket) => {
    // Not before: a client that ends its sending in the handshake has nothing to wait for.
    socket.allowHalfOpen = true;
    probe(socket);
  });
}

function probeHalfOpen(socket: Socket, everyMs: number): void {
  if (socket.destroyed) return;
  socket.setKeepAlive(true, everyMs);
  // Node no longer watches a connection that it has read to the end: a write of nothing reports the
  // reset.
  const look = setInterval(() => {
    if (socket.writable && socket.writableLength === 0) socket.write("");
  }, everyMs).unref();
  socket.once("close", () => clearInterval(look));
}
