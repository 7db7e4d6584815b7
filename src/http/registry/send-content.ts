import type { IncomingMessage } from "node:http";
import type { BlobAnswer } from "../../bodies/blob-answer.ts";
import type { ManifestAnswer } from "../../mirror/manifests/manifest-answers.ts";
import type { Mirror } from "../../mirror/mirror.ts";
import type { RoutedHosted, RoutedRepository } from "../../routing/routes.ts";
import type { Digest } from "../../oci/digest.ts";
import { formatContentRange, parseRangeHeader } from "../../oci/range.ts";
import type { Reference } from "../../oci/reference.ts";
import { addNamespace, type Call, targetOf } from "./call.ts";
import { MultipartBody } from "./multipart-body.ts";
import { allowsRange, matchesIfNoneMatch } from "./preconditions.ts";
import { UnsatisfiedRange } from "./refusals.ts";
import {
  addCacheStatus,
  beginHead,
  type Head,
  sendBody,
  sendBytes,
  sendHead,
} from "./send.ts";

/**
 * Sends a manifest.
 *
 * @returns undefined if the manifest was in memory and has been sent: most requests need no promise
 * @throws Refusal, RegistryError, synchronously or in the promise
 */
export function sendManifest(
  mirror: Mirror,
  call: Call,
  routed: RoutedRepository,
  reference: Reference,
): Promise<void> | undefined {
  const target = targetOf(routed);
  const recalled = mirror.recallManifest(target, reference, call.isHead);
  if (recalled === undefined) {
    return mirror
      .getManifest(target, reference, call.isHead)
      .then((manifest) => answerManifest(call, routed, manifest));
  }
  answerManifest(call, routed, recalled);
  return undefined;
}

function answerManifest(
  { request, response, exchange, isHead, bodyTexts }: Call,
  routed: RoutedRepository,
  manifest: ManifestAnswer,
): void {
  const { bytes, digest, status } = manifest;
  exchange.cache = status;
  const head = manifestHead(routed, manifest);
  const ifNoneMatch = request.headers["if-none-match"];
  if (digest !== undefined && matchesIfNoneMatch(ifNoneMatch, etagOf(digest))) {
    sendHead(response, 304, head);
  } else {
    const body = bodyTexts.of(bytes) ?? bytes;
    sendBytes(response, exchange, 200, head, body, isHead, "latin1");
  }
}

/** Returns the headers of a manifest, without its length. */
export function manifestHead(
  routed: RoutedRepository,
  { mediaType, digest, status, ageMs, isStale }: ManifestAnswer,
): Head {
  const head = beginHead(mediaType);
  if (digest !== undefined) {
    head.push("Docker-Content-Digest", digest, "ETag", etagOf(digest));
  }
  addNamespace(head, routed);
  addCacheStatus(head, status, ageMs, isStale);
  return head;
}

/** @throws Refusal, RegistryError, UnsatisfiedRange */
export async function sendBlob(
  mirror: Mirror,
  call: Call,
  routed: RoutedRepository,
  digest: Digest,
): Promise<void> {
  const { request } = call;
  const target = targetOf(routed);
  const etag = etagOf(digest);
  const isUnchanged = matchesIfNoneMatch(
    request.headers["if-none-match"],
    etag,
  );
  if (call.isHead || isUnchanged) {
    const blob = await mirror.statBlob(target, digest);
    const { status, mediaType, ageMs, sizeBytes } = blob;
    call.exchange.cache = status;
    const head = beginHead(mediaType);
    addBlobDescription(head, routed, digest);
    addCacheStatus(head, status, ageMs, false);
    if (sizeBytes !== undefined && !isUnchanged) {
      head.push("Content-Length", sizeBytes);
    }
    sendHead(call.response, isUnchanged ? 304 : 200, head);
    return;
  }
  const blob = await mirror.openBlob(target, digest, {
    ranges: allowsRange(header(request, "if-range"), etag)
      ? parseRangeHeader(request.headers.range)
      : undefined,
    client: call.exchange.client,
    // HTTP/1.0 has no chunked coding.
    isSizeNeeded: request.httpVersion === "1.0",
  });
  call.exchange.cache = blob.status;
  if (blob.kind === "unsatisfiable") {
    const head: Head = [];
    addBlobDescription(head, routed, digest);
    throw new UnsatisfiedRange(blob.sizeBytes, head);
  }
  await answerBlob(call, routed, digest, blob);
}

/** Sends a blob or parts of it, with `Cache-Status` if the repository is mirrored. */
export async function answerBlob(
  { response, exchange }: Call,
  routed: RoutedRepository | RoutedHosted,
  digest: Digest,
  blob: Exclude<BlobAnswer, { kind: "unsatisfiable" }>,
): Promise<void> {
  const isMirrored = routed.kind === "mirrored";
  exchange.source = blob.source;
  if (blob.kind === "parts") {
    const body = new MultipartBody(blob.body, blob);
    const head = beginHead(body.contentType);
    addBlobDescription(head, routed, digest);
    if (isMirrored) addCacheStatus(head, blob.status, blob.ageMs, false);
    head.push("Content-Length", body.lengthBytes);
    response.writeHead(206, head);
    if (blob.status.outcome !== "hit") response.flushHeaders();
    await sendBody(response, exchange, body, body.lengthBytes);
    if (response.writableEnded) blob.onSent?.();
    return;
  }
  const { body, range, sizeBytes } = blob;
  const lengthBytes =
    range === undefined ? sizeBytes : range.last - range.first + 1;
  const head = beginHead(blob.mediaType);
  addBlobDescription(head, routed, digest);
  if (isMirrored) addCacheStatus(head, blob.status, blob.ageMs, false);
  if (range !== undefined && sizeBytes !== undefined) {
    head.push("Content-Range", formatContentRange(range, sizeBytes));
  }
  if (lengthBytes !== undefined) head.push("Content-Length", lengthBytes);
  response.writeHead(range === undefined ? 200 : 206, head);
  // The first bytes of a fill may take a while; the headers are sent now.
  if (blob.status.outcome !== "hit") response.flushHeaders();
  await sendBody(response, exchange, body, lengthBytes);
  if (response.writableEnded) blob.onSent?.();
}

/** Adds the headers of every response about a blob, 416 included. */
export function addBlobDescription(
  head: Head,
  routed: RoutedRepository | RoutedHosted,
  digest: Digest,
): void {
  head.push("Docker-Content-Digest", digest, "ETag", etagOf(digest));
  head.push("Accept-Ranges", "bytes", "Content-Disposition", "attachment");
  addNamespace(head, routed);
}

/** Returns the entity tag of content: its digest in quotes. */
export function etagOf(digest: Digest): string {
  return `"${digest}"`;
}

/** Returns a header that may be sent once only. */
export function header(
  request: IncomingMessage,
  name: string,
): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}
