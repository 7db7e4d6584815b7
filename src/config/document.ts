import type { KeyPath } from "./fault.ts";
import type { CREDENTIAL_SCHEMA } from "./schema/credential-schema.ts";
import type { HOSTED_SCHEMA } from "./schema/hosted-schema.ts";
import type { CONFIG_SCHEMA } from "./schema/schema.ts";
import type { UPSTREAM_SCHEMA } from "./schema/upstream-schema.ts";
import type { Pruned, Written } from "./schema/written.ts";

export type { Pruned } from "./schema/written.ts";

/** The configuration as written, once the schema has accepted it and its defaults are filled in. */
export type ConfigDocument = Written<typeof CONFIG_SCHEMA>;

export type HostedDocument = Written<typeof HOSTED_SCHEMA>;

export type UpstreamDocument = Written<typeof UPSTREAM_SCHEMA>;

/** Has one of three forms; the checks between keys enforce it. */
export type CredentialDocument = Written<typeof CREDENTIAL_SCHEMA>;

/** Returns every credential of an upstream with its place. */
export function credentialsOf(
  name: string,
  upstream: Pruned<UpstreamDocument>,
): {
  readonly path: KeyPath;
  readonly credential: Pruned<CredentialDocument>;
}[] {
  const path = ["upstreams", name, "credentials"];
  const { credentials } = upstream;
  if (credentials === undefined) return [];
  if (!isList(credentials)) return [{ path, credential: credentials }];
  return [...credentials.entries()].flatMap(([index, credential]) =>
    credential === undefined ? [] : [{ path: [...path, index], credential }],
  );
}

export function upstreamsOf(
  document: Pruned<ConfigDocument>,
): [string, Pruned<UpstreamDocument>][] {
  return Object.entries(document.upstreams ?? {}).flatMap(([name, upstream]) =>
    upstream === undefined ? [] : [[name, upstream]],
  );
}

export function hostedOf(
  document: Pruned<ConfigDocument>,
): [string, Pruned<HostedDocument>][] {
  return Object.entries(document.hosted ?? {}).flatMap(([name, hosted]) =>
    hosted === undefined ? [] : [[name, hosted]],
  );
}

/** Narrows readonly lists too, which Array.isArray does not. */
export function isList<T>(value: T): value is Extract<T, readonly unknown[]> {
  return Array.isArray(value);
}
