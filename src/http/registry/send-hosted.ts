import type {
  HostedContent,
  HostedManifest,
} from "../../hosted/content/content.ts";
import type {
  EventSink,
  HostedEvent,
  HostedRepository,
  Sender,
} from "../../hosted/hosted.ts";
import { parseDigest, type Digest } from "../../oci/digest.ts";
import { OCI_INDEX } from "../../oci/media-type.ts";
import { RegistryError } from "../../oci/errors.ts";
import { parseRegistryRange } from "../../oci/range.ts";
import type { Reference } from "../../oci/reference.ts";
import { emptyImageIndex } from "../../oci/referrers.ts";
import { repositoryKey, type RoutedHosted } from "../../routing/routes.ts";
import {
  addNamespace,
  type Call,
  hostedOf,
  type RepositoryTarget,
  senderOf,
} from "./call.ts";
import { allowsRange, matchesIfNoneMatch } from "./preconditions.ts";
import { UnsatisfiedRange } from "./refusals.ts";
import {
  addBlobDescription,
  answerBlob,
  etagOf,
  header,
} from "./send-content.ts";
import { addNextLink } from "./send-lists.ts";
import { beginHead, type Head, sendBytes, sendHead } from "./send.ts";

/** Services that answer reads. */
export interface HostedReads {
  readonly content: HostedContent;
  /** Receives the pulls. */
  readonly events: EventSink;
}

/*
 * Responses about hosted content: like those about mirrored content, without `Cache-Status` and `Age`.
 */

/**
 * Sends a hosted manifest.
 *
 * @returns undefined if the manifest was in memory and has been sent
 * @throws RegistryError, synchronously or in the promise
 */
export function sendHostedManifest(
  { content, events }: HostedReads,
  call: Call,
  routed: RoutedHosted,
  reference: Reference,
): Promise<void> | undefined {
  const repository = hostedOf(routed);
  const recalled = content.recallManifest(repository, reference, call.isHead);
  const send = (manifest: HostedManifest): void => {
    answerManifest(call, routed, manifest);
    if (call.isHead) return;
    const sender = senderOf(call);
    events(pullOfManifest(repository, reference, manifest, sender));
  };
  if (recalled === undefined) {
    return content
      .getManifest(repository, reference, call.isHead)
      .then((manifest) => send(manifest));
  }
  send(recalled);
  return undefined;
}

/** Returns the event of a pulled manifest. */
export function pullOfManifest(
  { key }: HostedRepository,
  reference: Reference,
  { digest, mediaType, bytes }: HostedManifest,
  sender: Sender,
): HostedEvent {
  return {
    action: "pull",
    key,
    digest,
    tag: reference.kind === "tag" ? reference.tag : undefined,
    mediaType,
    sizeBytes: bytes.length,
    from: undefined,
    sender,
  };
}

function answerManifest(
  { request, response, exchange, isHead, bodyTexts }: Call,
  routed: RoutedHosted,
  manifest: HostedManifest,
): void {
  const { bytes, digest } = manifest;
  const head = hostedManifestHead(routed, manifest);
  if (matchesIfNoneMatch(request.headers["if-none-match"], etagOf(digest))) {
    sendHead(response, 304, head);
    return;
  }
  const body = bodyTexts.of(bytes) ?? bytes;
  sendBytes(response, exchange, 200, head, body, isHead, "latin1");
}

/** Returns the headers of a hosted manifest, without its length. */
export function hostedManifestHead(
  routed: RoutedHosted,
  { mediaType, digest }: HostedManifest,
): Head {
  const head = beginHead(mediaType);
  head.push("Docker-Content-Digest", digest, "ETag", etagOf(digest));
  addNamespace(head, routed);
  return head;
}

/** @throws RegistryError, UnsatisfiedRange */
export async function sendHostedBlob(
  { content, events }: HostedReads,
  call: Call,
  routed: RoutedHosted,
  digest: Digest,
): Promise<void> {
  const { request, response, isHead, admission, exchange } = call;
  const repository = hostedOf(routed);
  const { upstream, repository: name } = repositoryKey(routed);
  const etag = etagOf(digest);
  const isUnchanged = matchesIfNoneMatch(
    request.headers["if-none-match"],
    etag,
  );
  if (isHead || isUnchanged) {
    // A client that may push skips the upload of a blob that it finds here.
    const isClaimed = admission.may("push", `${upstream}/${name}`);
    const blob = await content.statBlob(repository, digest, isClaimed);
    const head = beginHead(blob.mediaType);
    addBlobDescription(head, routed, digest);
    if (!isUnchanged) head.push("Content-Length", blob.sizeBytes);
    sendHead(response, isUnchanged ? 304 : 200, head);
    return;
  }
  const ranges = allowsRange(header(request, "if-range"), etag)
    ? parseRegistryRange(request.headers.range)
    : undefined;
  const demand = { ranges, client: exchange.client };
  const blob = await content.openBlob(repository, digest, demand);
  if (blob.kind === "unsatisfiable") {
    const head: Head = [];
    addBlobDescription(head, routed, digest);
    throw new UnsatisfiedRange(blob.sizeBytes, head);
  }
  await answerBlob(call, routed, digest, blob);
  const isWhole = blob.kind === "body" && blob.range === undefined;
  if (!isWhole || !response.writableEnded) return;
  events({
    action: "pull",
    key: repository.key,
    digest,
    tag: undefined,
    mediaType: undefined,
    sizeBytes: blob.sizeBytes,
    from: undefined,
    sender: senderOf(call),
  });
}

/** @throws RegistryError */
export async function sendHostedTags(
  content: HostedContent,
  call: Call,
  routed: RoutedHosted,
  target: RepositoryTarget & { readonly kind: "tags" },
): Promise<void> {
  const page = await content.listTags(hostedOf(routed), target);
  const head = beginHead("application/json");
  addNextLink(head, call, target, page.nextLast);
  addNamespace(head, routed);
  const body = { name: target.repository, tags: page.entries };
  const { response, exchange, isHead } = call;
  sendBytes(response, exchange, 200, head, JSON.stringify(body), isHead);
}

/** @throws RegistryError */
export async function sendHostedReferrers(
  content: Pick<HostedContent, "listReferrers">,
  call: Call,
  routed: RoutedHosted,
  target: RepositoryTarget & { readonly kind: "referrers" },
): Promise<void> {
  const { digest, artifactTypes, last } = target;
  const page = await content.listReferrers(
    hostedOf(routed),
    digest,
    artifactTypes,
    last === undefined ? undefined : parseDigest(last),
  );
  const head = beginHead(OCI_INDEX);
  if (page.isFiltered) head.push("OCI-Filters-Applied", "artifactType");
  addNextLink(head, call, target, page.nextLast);
  addNamespace(head, routed);
  const { response, exchange, isHead } = call;
  sendBytes(response, exchange, 200, head, page.bytes, isHead);
}

/** A repository without content. */
const NOTHING: Pick<HostedContent, "listReferrers"> = {
  listReferrers: (_repository, _subject, artifactTypes) =>
    Promise.resolve({
      bytes: emptyImageIndex(),
      isFiltered: artifactTypes.length > 0,
      nextLast: undefined,
    }),
};

/**
 * Answers a read as if the repository did not exist.
 *
 * @throws RegistryError
 */
export function sendHostedAbsence(
  call: Call,
  routed: RoutedHosted,
  target: RepositoryTarget,
): Promise<void> {
  switch (target.kind) {
    case "manifest":
      throw new RegistryError("MANIFEST_UNKNOWN");
    case "blob":
      throw new RegistryError("BLOB_UNKNOWN");
    case "referrers":
      return sendHostedReferrers(NOTHING, call, routed, target);
    case "tags":
    case "upload":
      throw new RegistryError("NAME_UNKNOWN");
    default:
      return target satisfies never;
  }
}
