import type { IncomingMessage } from "node:http";
import { RegistryError } from "../oci/errors.ts";

/**
 * What Node's parser lets pass, or answers without a body of ours: HTTP/0.9, and a request that
 * names no host or several, of which a proxy in front may have believed another one.
 *
 * @throws RegistryError
 * @see https://www.rfc-editor.org/rfc/rfc9112#section-3.2
 */
export function assertRequestHead(request: IncomingMessage): void {
  const { httpVersion, rawHeaders } = request;
  if (httpVersion !== "1.1" && httpVersion !== "1.0") {
    throw malformed("HTTP version is neither 1.0 nor 1.1");
  }
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? "";
    if (name.length === 4 && name.toLowerCase() === "host") hosts++;
  }
  if (hosts > 1 || (hosts === 0 && httpVersion === "1.1")) {
    throw malformed("request must have one Host header");
  }
}

function malformed(detail: string): RegistryError {
  return new RegistryError("NAME_INVALID", { detail });
}
