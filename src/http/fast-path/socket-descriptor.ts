import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";

/**
 * Returns the file descriptor of a connection, for system calls that bypass its stream. It is not
 * part of Node's public interface, but has been in this place since the first versions.
 *
 * The caller gets it again before each call: after a close the number may belong to another
 * connection.
 *
 * @returns undefined if the connection is closed, uses TLS, or has unwritten bytes, which must be
 *   sent first
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
