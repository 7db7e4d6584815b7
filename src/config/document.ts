import type { AccessRule, Config, LimitsConfig } from "./config.ts";
import type { KeyPath } from "./fault.ts";

/** The configuration as written, once the schema has passed it and its defaults are in. */
export interface ConfigDocument {
  readonly listen: string | readonly string[];
  readonly tls?: ServerTlsDocument;
  readonly operator: {
    readonly listen: string | false;
    readonly tokenFile?: string;
  };
  readonly storage: { readonly root: string };
  readonly eviction: {
    readonly maxSize: string | number;
    readonly minFree: string | number;
    readonly maxIdle: string;
    readonly keep: readonly string[];
  };
  readonly scrub: { readonly background: string; readonly onRead: string };
  readonly offline: boolean;
  readonly upstreams?: Readonly<Record<string, UpstreamDocument>>;
  readonly access?: AccessDocument;
  readonly trustedProxies: readonly string[];
  readonly limits: LimitsConfig;
  readonly audit: { readonly file?: string };
  readonly log: Config["log"];
}

export interface ServerTlsDocument {
  readonly certificateFile?: string;
  readonly keyFile?: string;
  readonly clientCaFile?: string;
}

export interface AccessDocument {
  readonly htpasswdFile?: string;
  readonly tokenServer?: TokenServerDocument;
  readonly anonymous: "pull" | "none";
  readonly anonymousNetworks: readonly string[];
  readonly rules: readonly AccessRule[];
}

export interface TokenServerDocument {
  readonly realm?: string;
  readonly service?: string;
  readonly issuer?: string;
  readonly jwksFile?: string;
  readonly certificateFile?: string;
}

export interface UpstreamDocument {
  readonly default: boolean;
  readonly endpoints?: readonly string[];
  readonly aliases?: readonly string[];
  readonly hostnames: readonly string[];
  readonly libraryPrefix?: boolean;
  readonly credentials?: CredentialDocument | readonly CredentialDocument[];
  readonly access?: "shared";
  readonly freshness: {
    readonly tagTtl: string;
    readonly rules: readonly { readonly match: string; readonly ttl: string }[];
    readonly staleIfGone: string;
    readonly staleIfError: string;
    readonly staleWhileRevalidate: string;
    readonly notFoundTtl: string;
  };
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  readonly redirectHosts: readonly string[];
  readonly tokenRealms: readonly string[];
  readonly concurrency: number;
  readonly bandwidth: string | number;
  readonly connectTimeout: string;
  readonly headersTimeout: string;
  readonly idleTimeout: string;
  readonly proxy?: string;
  readonly tls: {
    readonly caFile?: string;
    readonly certificateFile?: string;
    readonly keyFile?: string;
    readonly insecureSkipVerify: boolean;
  };
}

/** One of three forms: the checks between keys hold them apart. */
export interface CredentialDocument {
  readonly username?: string;
  readonly password?: string;
  readonly passwordFile?: string;
  readonly dockerConfigFile?: string;
  readonly helper?: string;
}

/**
 * The same after the schema's faults were taken out: any part may be missing, list items too, and
 * what is there is right. So one pass can tell the faults of the schema and those between keys.
 */
export type Pruned<T> = T extends readonly (infer Item)[]
  ? readonly (Pruned<Item> | undefined)[]
  : T extends object
    ? { readonly [Key in keyof T]?: Pruned<T[Key]> | undefined }
    : T;

/** Every credential of an upstream with its place. */
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

/** The compiler's own check does not see that a readonly list is a list. */
export function isList<T>(value: T): value is Extract<T, readonly unknown[]> {
  return Array.isArray(value);
}
