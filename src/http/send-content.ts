import type { IncomingMessage } from "node:http";
import type { Mirror } from "../mirror/mirror.ts";
import type { RoutedRepository } from "../mirror/upstream-routes.ts";
import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import { formatContentRange, parseRangeHeader } from "../oci/range.ts";
import { type Reference, referenceText } from "../oci/reference.ts";
import { type Call, namespaceHeader, targetOf } from "./call.ts";
import { allowsRange, matchesIfNoneMatch } from "./preconditions.ts";
import { UnsatisfiedRange } from "./refusals.ts";
import {
  agingHeaders,
  COMMON_HEADERS,
  sendBody,
  sendBytes,
  sendHeaders,
} from "./send.ts";

/** @throws Refusal, RegistryError */
export async function sendManifest(
  mirror: Mirror,
  call: Call,
  routed: RoutedRepository,
  reference: Reference,
): Promise<void> {
  const { exchange, request, response } = call;
  exchange.reference = referenceText(reference);
  const target = targetOf(routed);
  const manifest =
    mirror.recallManifest(target, reference) ??
    (await mirror.getManifest(target, reference));
  exchange.cache = manifest.status;
  const headers = {
    "Content-Type": manifest.mediaType,
    ...(manifest.digest === undefined
      ? {}
      : {
          "Docker-Content-Digest": manifest.digest,
          ETag: `"${manifest.digest}"`,
        }),
    ...namespaceHeader(routed),
    "Cache-Status": manifest.status.text,
    ...agingHeaders(manifest),
  };
  if (
    manifest.digest !== undefined &&
    matchesIfNoneMatch(request.headers["if-none-match"], `"${manifest.digest}"`)
  ) {
    sendHeaders(response, 304, headers);
    return;
  }
  sendBytes(response, exchange, 200, headers, manifest.bytes, call.isHead);
}

/** @throws Refusal, RegistryError, UnsatisfiedRange */
export async function sendBlob(
  mirror: Mirror,
  call: Call,
  routed: RoutedRepository,
  digest: Digest,
): Promise<void> {
  const { exchange, request, response } = call;
  exchange.reference = digest;
  const etag = `"${digest}"`;
  const headers = {
    "Docker-Content-Digest": digest,
    ETag: etag,
    "Accept-Ranges": "bytes",
    "Content-Disposition": "attachment",
    ...namespaceHeader(routed),
  };
  const isUnchanged = matchesIfNoneMatch(
    request.headers["if-none-match"],
    etag,
  );
  if (call.isHead || isUnchanged) {
    const head = await mirror.statBlob(targetOf(routed), digest);
    exchange.cache = head.status;
    sendHeaders(response, isUnchanged ? 304 : 200, {
      "Content-Type": head.mediaType,
      ...headers,
      "Cache-Status": head.status.text,
      ...agingHeaders({ ageMs: head.ageMs, isStale: false }),
      ...(head.sizeBytes === undefined || isUnchanged
        ? {}
        : { "Content-Length": head.sizeBytes }),
    });
    return;
  }
  const spec = allowsRange(header(request, "if-range"), etag)
    ? parseRangeHeader(request.headers.range)
    : undefined;
  const blob = await mirror.openBlob(targetOf(routed), digest, spec);
  exchange.cache = blob.status;
  if (blob.kind === "unsatisfiable") {
    throw new UnsatisfiedRange(blob.sizeBytes, headers);
  }
  exchange.source = blob.source;
  const { body, range, sizeBytes } = blob;
  if (sizeBytes === undefined && request.httpVersion === "1.0") {
    body.close();
    throw new RegistryError("UNAVAILABLE", {
      detail: "the blob's size is not known and HTTP/1.0 can't be told so",
    });
  }
  const lengthBytes =
    range === undefined ? sizeBytes : range.last - range.first + 1;
  response.writeHead(range === undefined ? 200 : 206, {
    ...COMMON_HEADERS,
    "Content-Type": blob.mediaType,
    ...headers,
    "Cache-Status": blob.status.text,
    ...agingHeaders({ ageMs: blob.ageMs, isStale: false }),
    ...(range === undefined || sizeBytes === undefined
      ? {}
      : { "Content-Range": formatContentRange(range, sizeBytes) }),
    ...(lengthBytes === undefined ? {} : { "Content-Length": lengthBytes }),
  });
  // A fill's first bytes may be withheld for a while: the headers are not.
  if (blob.status.outcome !== "hit") response.flushHeaders();
  await sendBody(response, exchange, body, lengthBytes);
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}
