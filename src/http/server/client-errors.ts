import { STATUS_CODES, type Server } from "node:http";
import type { Socket } from "node:net";
import { type RegistryErrorCode, registryErrorBody } from "../../oci/errors.ts";

/** What Node's parser refuses, by its error code; anything else is a malformed request. */
const FAULTS: Readonly<
  Record<string, readonly [number, RegistryErrorCode, string]>
> = {
  HPE_HEADER_OVERFLOW: [431, "NAME_INVALID", "request head is too large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "UNKNOWN", "request took too long"],
};

/** What is known of a connection with requests, or with bytes that are not a request. */
interface Connection {
  /** Requests that were read and whose answers have not ended. */
  answersDue: number;
  /** The answer to the malformed bytes; sent once no other is due, and only once. */
  refusal: string | undefined;
}

/**
 * Answers bytes that are not an HTTP request, in the specification's form, and ends the connection.
 * TLS bytes on a plain port end here too.
 *
 * A client may send its next request before it has the answer to the one before. An answer that is
 * written while another one runs would become a part of that one's body, or take its place; so the
 * refusal waits for the answers that are due.
 */
export function answerClientErrors(server: Server): void {
  const connections = new WeakMap<Socket, Connection>();
  const connectionOf = (socket: Socket): Connection => {
    const known = connections.get(socket);
    if (known !== undefined) return known;
    const made = { answersDue: 0, refusal: undefined };
    connections.set(socket, made);
    return made;
  };

  server.prependListener("request", ({ socket }, response) => {
    const connection = connectionOf(socket);
    connection.answersDue += 1;
    response.once("close", () => {
      connection.answersDue -= 1;
      refuseIfAtRest(socket, connection);
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
    // The parser refuses whatever follows as well.
    if (connection.refusal !== undefined) return;
    connection.refusal = refusalFor(code);
    refuseIfAtRest(stream, connection);
  });
}

function refuseIfAtRest(socket: Socket, connection: Connection): void {
  const { answersDue, refusal } = connection;
  if (refusal === undefined || answersDue > 0 || !socket.writable) return;
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
