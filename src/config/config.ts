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
  readonly offline: boolean;
  /** In the file's order; names are unique, aliases and hostnames too. */
  readonly upstreams: readonly UpstreamConfig[];
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

export interface LimitsConfig {
  /** 0: from the limit of file descriptors. */
  readonly connections: number;
  /** 0: half of the connections. */
  readonly connectionsPerAddress: number;
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
  readonly isDefault: boolean;
  /** Absolute http(s) URLs without a trailing slash; a path goes between `/v2/` and the repository. */
  readonly endpoints: readonly string[];
  readonly aliases: readonly string[];
  readonly hostnames: readonly string[];
  readonly libraryPrefix: boolean;
  readonly credentials: readonly UpstreamCredential[];
  readonly freshness: FreshnessConfig;
  readonly tokenRealms: readonly string[];
  readonly concurrency: number;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly tls: {
    /** PEM text of `tls.caFile`. */
    readonly ca: string | undefined;
    /** Where it was read from, absolute. */
    readonly caFile?: string;
    readonly insecureSkipVerify: boolean;
  };
}

export interface UpstreamCredential {
  readonly username: string;
  readonly password: Secret;
  /** Where it was read from, absolute; absent where the configuration holds it. */
  readonly passwordFile?: string;
}

export interface FreshnessConfig {
  readonly tagTtlMs: number;
  /** First match wins; globs over `repository:tag`. */
  readonly rules: readonly { readonly match: string; readonly ttlMs: number }[];
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
