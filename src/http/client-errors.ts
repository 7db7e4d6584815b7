import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import { type RegistryErrorCode, registryErrorBody } from "../oci/errors.ts";

/** What Node's parser refuses, by its error code; anything else is a malformed request. */
const FAULTS: Readonly<
  Record<string, readonly [number, RegistryErrorCode, string]>
> = {
  HPE_HEADER_OVERFLOW: [431, "NAME_INVALID", "request head is too large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "UNKNOWN", "request took too long"],
};

/**
 * Answers bytes that are no HTTP request, in the specification's form, and ends the connection.
 * TLS bytes on a plain port end here too.
 */
export function answerClientError(error: Error, socket: Socket): void {
  const code = "code" in error ? String(error.code) : "";
  if (code === "ECONNRESET" || !socket.writable || socket.destroyed) {
    socket.destroy();
    return;
  }
  const [status, registryCode, detail] = FAULTS[code] ?? [
    400,
    "NAME_INVALID",
    "malformed request",
  ];
  const body = registryErrorBody(registryCode, undefined, detail);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n` +
      "Docker-Distribution-API-Version: registry/2.0\r\n" +
      "Content-Type: application/json\r\n" +
      `Content-Length: ${Buffer.byteLength(body)}\r\n` +
      `Connection: close\r\n\r\n${body}`,
    () => socket.destroy(),
  );
}
