import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";

/**
 * The number by which the system knows a connection, for calls past its stream. Node tells it to
 * nobody, and has kept it here since its first versions.
 *
 * @returns undefined where the connection is closed, has a form of its own (TLS), or has bytes left
 *   to write, which must come first. Once it is closed the number may be another connection's: it is
 *   asked for before each call.
 */
export function socketDescriptor(socket: Socket): number | undefined {
  if (socket instanceof TLSSocket || socket.writableLength > 0) {
    return undefined;
  }
  const { _handle: handle } = socket as Socket & {
    _handle?: { readonly fd?: unknown } | null;
  };
  const fd = handle?.fd;
  return typeof fd === "number" && fd >= 0 ? fd : undefined;
}
