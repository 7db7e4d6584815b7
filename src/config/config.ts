/** The configuration as the rest of the program sees it: defaults filled, units in bytes and milliseconds, secrets read. */
export interface Config {
  readonly listen: readonly ListenAddress[];
  /** Absent: plain HTTP. */
  readonly tls?: ServerTlsConfig;
  readonly operator: {
    readonly listen: ListenAddress | undefined;
    /** Asked for by `/api/v1`; absent: clients of this machine only. */
    readonly token?: Secret;
    /** Where it was read from, absolute. */
    readonly tokenFile?: string;
  };
  readonly storage: { readonly root: string };
  readonly eviction: EvictionConfig;
  /** The part of all bytes that is verified again each day; 0 for `off`. */
  readonly scrub: {
    readonly dailyShare: number;
    /** Infinity for `off`. */
    readonly onReadMs: number;
  };
  readonly offline: boolean;
  /** In the file's order; names are unique, aliases and hostnames too. */
  readonly upstreams: readonly UpstreamConfig[];
  /** Keys with `*`, in the file's order: settings of registries that requests name; absent: none. */
  readonly upstreamTemplates?: readonly UpstreamConfig[];
  /** Absent: whoever reaches the mirror may pull. */
  readonly access?: AccessConfig;
  /** Addresses and CIDRs whose `X-Forwarded-*` are believed; absent: none. */
  readonly trustedProxies?: readonly string[];
  /** Absent: as where nothing is written. */
  readonly limits?: LimitsConfig;
  readonly audit?: {
    /** Absolute, or `-`; undefined: nothing is recorded. */
    readonly file: string | undefined;
  };
  readonly log: {
    readonly level: "trace" | "debug" | "info" | "warn" | "error" | "fatal";
    readonly format: "json" | "pretty";
  };
}

/** Bytes, or a share of the file system between 0 and 1. */
export type AmountConfig =
  { readonly bytes: number } | { readonly share: number };

export interface EvictionConfig {
  readonly maxSize: AmountConfig;
  readonly minFree: AmountConfig;
  /** Infinity for `forever`. */
  readonly maxIdleMs: number;
  /** Globs over `upstream/repository[:tag]`. */
  readonly keep: readonly string[];
}

export interface LimitsConfig {
  /** 0: from the limit of file descriptors. */
  readonly connections: number;
  /** 0: half of the connections. */
  readonly connectionsPerAddress: number;
  /** Downloads at once, of all upstreams; 0: derived. */
  readonly fills: number;
}

export interface ListenAddress {
  /** Without brackets. */
  readonly host: string;
  readonly port: number;
}

/** Absolute paths of PEM files, read when the mirror starts and whenever they change. */
export interface ServerTlsConfig {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly clientCaFile: string | undefined;
}

export interface AccessConfig {
  /** Absolute; read when the mirror starts and whenever it changes. */
  readonly htpasswdFile: string | undefined;
  readonly tokenServer: TokenServerConfig | undefined;
  readonly anonymous: "pull" | "none";
  /** Addresses and CIDRs; empty: everywhere. */
  readonly anonymousNetworks: readonly string[];
  /** Empty: whoever is let in may pull everything; else what no rule allows is denied. */
  readonly rules: readonly AccessRule[];
}

/** A token server of the Docker and Distribution kind. */
export interface TokenServerConfig {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  /** Absolute. */
  readonly keys: {
    readonly kind: "jwks" | "certificates";
    readonly file: string;
  };
}

export type AccessAction = "pull" | "push" | "delete";

export interface AccessRule {
  /** Users; `*`: everybody. */
  readonly who: readonly string[];
  /** Globs over `upstream/repository`. */
  readonly repositories: readonly string[];
  readonly actions: readonly AccessAction[];
}

export interface UpstreamConfig {
  /** The key, as in an image reference: `docker.io`, `registry.corp:5000`. */
  readonly name: string;
  /** The key with `*` that it was made from, when a request named it. */
  readonly template?: string;
  readonly isDefault: boolean;
  /** Absolute http(s) URLs without a trailing slash; a path goes between `/v2/` and the repository. Empty for a template. */
  readonly endpoints: readonly string[];
  readonly aliases: readonly string[];
  readonly hostnames: readonly string[];
  readonly libraryPrefix: boolean;
  readonly credentials: readonly UpstreamCredential[];
  readonly freshness: FreshnessConfig;
  /** Patterns over `repository[:tag]`; empty: everything. */
  readonly allow: readonly string[];
  /** Patterns of what is never pulled, also where `allow` covers it. */
  readonly deny: readonly string[];
  /** Host globs and CIDRs that may be redirected to although private. */
  readonly redirectHosts: readonly string[];
  readonly tokenRealms: readonly string[];
  /** Connections for blobs per endpoint; 0: unlimited. */
  readonly concurrency: number;
  /** Of the bodies of blobs, all downloads together; Infinity: unlimited. */
  readonly bandwidthBytesPerSecond: number;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly proxy: ProxyConfig;
  readonly tls: {
    /** PEM text of `tls.caFile`. */
    readonly ca: string | undefined;
    /** Where it was read from, absolute. */
    readonly caFile?: string;
    /** What the endpoint is shown of us: PEM texts, and where they were read from, absolute. */
    readonly clientCertificate?: {
      readonly certificate: string;
      readonly key: Secret;
      readonly certificateFile: string;
      readonly keyFile: string;
    };
    readonly insecureSkipVerify: boolean;
  };
}

/** Through which forward proxies an upstream is reached; each a whole URL, which may hold a password. */
export interface ProxyConfig {
  /** `upstream`: for all of its traffic; `environment`: but for what NO_PROXY names, if it names any. */
  readonly source: "upstream" | "environment" | "none";
  readonly https: Secret | undefined;
  readonly http: Secret | undefined;
  /** As in NO_PROXY. */
  readonly noProxy: readonly string[];
}

export type UpstreamCredential =
  PasswordCredential | DockerConfigCredential | HelperCredential;

export interface PasswordCredential {
  readonly username: string;
  readonly password: Secret;
  /** Where it was read from, absolute; absent where the configuration holds it. */
  readonly passwordFile?: string;
}

/** Docker's own `config.json`, read again when it changes. */
export interface DockerConfigCredential {
  /** Absolute. */
  readonly dockerConfigFile: string;
}

/** A program that speaks Docker's credential-helper protocol. */
export interface HelperCredential {
  /** A name looked for in `PATH`, or an absolute path. */
  readonly helper: string;
}

export interface FreshnessConfig {
  readonly tagTtlMs: number;
  /** First match wins; globs over `repository:tag`. */
  readonly rules: readonly { readonly match: string; readonly ttlMs: number }[];
  /** Infinity for `forever`. */
  readonly staleIfGoneMs: number;
  /** Infinity for `forever`. */
  readonly staleIfErrorMs: number;
  readonly staleWhileRevalidateMs: number;
  readonly notFoundTtlMs: number;
}

/** A text that no log, error or JSON shows. */
export class Secret {
  readonly #text: string;
  constructor(text: string) {
    this.#text = text;
  }
  reveal(): string {
    return this.#text;
  }
  toString(): string {
    return "[redacted]";
  }
  toJSON(): string {
    return "[redacted]";
  }
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return "[redacted]";
  }
}
