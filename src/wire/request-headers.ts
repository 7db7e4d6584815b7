import { UPSTREAM_ACCEPT } from "../oci/media-type.ts";

/** Who we are to an upstream. */
export interface Identity {
  readonly version: string;
  /** By it a mirror knows its own requests when they come back. */
  readonly instanceId: string;
}

export interface RequestHeaderOptions {
  readonly accept?: string;
  readonly authorization?: string | undefined;
  /** `bytes=5-` */
  readonly range?: string | undefined;
  /** Of a POST. */
  readonly contentType?: string | undefined;
}

/**
 * Everything that is ever sent upstream. Nothing is copied from a client's request: its
 * credentials, cookies and wishes are no business of an upstream.
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
    // Digests are over the bytes as published; an encoded body would match none.
    "accept-encoding": "identity",
    "user-agent": `entrepot/${version}`,
    via: `1.1 entrepot-${instanceId}`,
    ...(authorization === undefined ? {} : { authorization }),
    ...(range === undefined ? {} : { range }),
    ...(contentType === undefined ? {} : { "content-type": contentType }),
  };
}
