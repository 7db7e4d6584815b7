import { STATUS_CODES, type Server } from "node:http";
import type { Socket } from "node:net";
import { type RegistryErrorCode, registryErrorBody } from "../../oci/errors.ts";

/** Responses by the error code of Node's parser; any other code is a malformed request. */
const FAULTS: Readonly<
  Record<string, readonly [number, RegistryErrorCode, string]>
> = {
  HPE_HEADER_OVERFLOW: [431, "NAME_INVALID", "request head is too large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "UNKNOWN", "request took too long"],
};

/** The state of a connection with requests or malformed bytes. */
interface Connection {
  /** Requests whose responses have not ended. */
  pendingResponses: number;
  /** The response to the malformed bytes; sent once, after the pending responses. */
  refusal: string | undefined;
}

/**
 * Answers bytes that are not an HTTP request with a registry error, and closes the connection. TLS
 * bytes on a plain port are such bytes too.
 *
 * A pipelining client sends its next request before it has the previous response. A refusal that is
 * written during another response would become part of its body, so it waits for pending responses.
 */
export function answerClientErrors(server: Server): void {
  const connections = new WeakMap<Socket, Connection>();
  const connectionOf = (socket: Socket): Connection => {
    const known = connections.get(socket);
    if (known !== undefined) return known;
    const made = { pendingResponses: 0, refusal: undefined };
    connections.set(socket, made);
    return made;
  };

  server.prependListener("request", ({ socket }, response) => {
    const connection = connectionOf(socket);
    connection.pendingResponses += 1;
    response.once("close", () => {
      connection.pendingResponses -= 1;
      refuseIfIdle(socket, connection);
    });
  });

  server.on("clientError", (error: Error, socket) => {
    const code = "code" in error ? String(error.code) : "";
    const stream = socket as Socket;
    if (code === "ECONNRESET" || !stream.writable || stream.destroyed) {
      stream.destroy();
      return;
    }
    const connection = connectionOf(stream);
    // An upload may take hours; its route cuts off a client that sends nothing. Node reports a
    // connection once, so that the next request has its own time.
    if (
      code === "ERR_HTTP_REQUEST_TIMEOUT" &&
      connection.pendingResponses > 0
    ) {
      return;
    }
    // The parser rejects all following bytes as well.
    if (connection.refusal !== undefined) return;
    connection.refusal = refusalFor(code);
    refuseIfIdle(stream, connection);
  });
}

function refuseIfIdle(socket: Socket, connection: Connection): void {
  const { pendingResponses, refusal } = connection;
  if (refusal === undefined || pendingResponses > 0 || !socket.writable) return;
  socket.end(refusal, () => socket.destroy());
}

function refusalFor(code: string): string {
  const [status, registryCode, detail] = FAULTS[code] ?? [
    400,
    "NAME_INVALID",
    "malformed request",
  ];
  const body = registryErrorBody(registryCode, undefined, detail);
  return (
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n` +
    "Docker-Distribution-API-Version: registry/2.0\r\n" +
    "Content-Type: application/json\r\n" +
    `Content-Length: ${Buffer.byteLength(body)}\r\n` +
    `Connection: close\r\n\r\n${body}`
  );
}
