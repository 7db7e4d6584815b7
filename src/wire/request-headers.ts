import { UPSTREAM_ACCEPT } from "../oci/media-type.ts";

/** The identity of the mirror in its requests. */
export interface Identity {
  readonly version: string;
  /** Lets a mirror recognise its own requests in a loop. */
  readonly instanceId: string;
}

export interface RequestHeaderOptions {
  readonly accept?: string;
  readonly authorization?: string | undefined;
  /** `bytes=5-` */
  readonly range?: string | undefined;
  /** The type of a POST body. */
  readonly contentType?: string | undefined;
}

/**
 * Returns all headers of a request to an upstream. Nothing is copied from a client's request: its
 * credentials, cookies and preferences do not concern the upstream.
 */
export function requestHeaders(
  { version, instanceId }: Identity,
  options: RequestHeaderOptions,
): Readonly<Record<string, string>> {
  const {
    accept = UPSTREAM_ACCEPT,
    authorization,
    range,
    contentType,
  } = options;
  return {
    accept,
    // Digests cover the published bytes; an encoded body would not match.
    "accept-encoding": "identity",
    "user-agent": `entrepot/${version}`,
    via: `1.1 entrepot-${instanceId}`,
    ...(authorization === undefined ? {} : { authorization }),
    ...(range === undefined ? {} : { range }),
    ...(contentType === undefined ? {} : { "content-type": contentType }),
  };
}
