import { randomUUID } from "node:crypto";
import { OCTET_STREAM } from "../../oci/media-type.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import type { HostedEvent } from "../hosted.ts";

/** The media type of an envelope, `{"events": […]}`. */
export const EVENTS_MEDIA_TYPE =
  "application/vnd.docker.distribution.events.v2+json";

/** Bounds the text that a client's headers add to a record. */
const MAX_TEXT_LENGTH = 256;
/** A host with or without a port; other text from a client must not become part of a URL. */
const HOST = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$/;

export interface RecordContext {
  readonly nowMs: number;
  /** Returns the name by which clients pull the repository: `local/team/app`. */
  readonly nameOf: (key: RepositoryKey) => string;
  /** The scheme of the registry API, as clients reach it. */
  readonly scheme: "http" | "https";
  /** This process. */
  readonly source: { readonly addr: string; readonly instanceID: string };
}

/**
 * Returns an event as JSON text, in the form that the Distribution registry sends. Consumers take the
 * registry's host from `target.url`.
 *
 * @see https://distribution.github.io/distribution/about/notifications/
 */
export function formatEvent(
  event: HostedEvent,
  { nowMs, nameOf, scheme, source }: RecordContext,
): string {
  const { action, digest, tag, mediaType, sizeBytes, from, sender } = event;
  const repository = nameOf(event.key);
  const host = clip(sender.host);
  const isBlob =
    tag === undefined && (mediaType ?? OCTET_STREAM) === OCTET_STREAM;
  const kind = isBlob ? "blobs" : "manifests";
  return JSON.stringify({
    id: randomUUID(),
    timestamp: new Date(nowMs).toISOString(),
    action,
    target: {
      mediaType,
      size: sizeBytes,
      digest,
      length: sizeBytes,
      repository,
      fromRepository: from && nameOf(from),
      url:
        action === "delete" || digest === undefined || !HOST.test(host ?? "")
          ? undefined
          : `${scheme}://${host}/v2/${repository}/${kind}/${digest}`,
      tag,
    },
    request: {
      id: randomUUID(),
      addr: sender.client,
      host,
      method: sender.method,
      useragent: clip(sender.userAgent) ?? "",
    },
    actor: { name: clip(sender.user) },
    source,
  });
}

/** Returns the body of a request that reports these events. */
export function formatEnvelope(records: readonly string[]): string {
  return `{"events":[${records.join(",")}]}`;
}

function clip(text: string | undefined): string | undefined {
  return text?.slice(0, MAX_TEXT_LENGTH);
}
