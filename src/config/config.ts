import type { HOSTED_SCHEMA } from "./schema/hosted-schema.ts";
import type { NOTIFICATION_SCHEMA } from "./schema/notification-schema.ts";
import type { CONFIG_SCHEMA } from "./schema/schema.ts";
import type { ListenAddress } from "./schema/forms.ts";
import type { Settings } from "./schema/settings.ts";
import type { UPSTREAM_SCHEMA } from "./schema/upstream-schema.ts";

export type { ListenAddress } from "./schema/forms.ts";
export type { AmountConfig } from "./schema/units.ts";

type Root = Settings<typeof CONFIG_SCHEMA>;
type UpstreamSettings = Settings<typeof UPSTREAM_SCHEMA>;

/**
 * The configuration as the rest of the program sees it: defaults filled in, units in bytes and
 * milliseconds, paths absolute, secrets read. The schema gives every member but those below, which
 * are made of more than one key or of what files hold.
 */
export interface Config extends Omit<
  Root,
  | "access"
  | "hosted"
  | "listen"
  | "notifications"
  | "operator"
  | "tls"
  | "upstreams"
> {
  readonly listen: readonly ListenAddress[];
  /** Absent: plain HTTP. */
  readonly tls?: ServerTlsConfig;
  readonly operator: Omit<Root["operator"], "listen"> & {
    readonly listen: ListenAddress | undefined;
    /** Required by `/api/v1`; absent: clients of this machine only. */
    readonly token?: Secret;
  };
  /** In the file's order; names are unique, aliases and hostnames too. */
  readonly upstreams: readonly UpstreamConfig[];
  /** Keys with `*`, in the file's order: settings of registries that requests name; absent: none. */
  readonly upstreamTemplates?: readonly UpstreamConfig[];
  /** In the file's order; empty: nothing is hosted. */
  readonly hosted: readonly HostedConfig[];
  readonly notifications: readonly NotificationConfig[];
  /** Absent: every client that reaches the mirror may pull. */
  readonly access?: AccessConfig;
}

/** A registry of repositories that are pushed here. */
export interface HostedConfig extends Settings<typeof HOSTED_SCHEMA> {
  /** The key, used like an upstream's: `local`. */
  readonly name: string;
}

export type HostedRetentionConfig = NonNullable<HostedConfig["retention"]>;

/** A webhook. */
export interface NotificationConfig extends Omit<
  Settings<typeof NOTIFICATION_SCHEMA>,
  "headersFile" | "url"
> {
  /** May hold a password: hidden wherever it is shown. */
  readonly url: Secret;
  /** The headers of every request, by their names as written. */
  readonly headers: ReadonlyMap<string, Secret>;
  /** The absolute path of the file that holds the headers. */
  readonly headersFile?: string;
}

export type EvictionConfig = Root["eviction"];

/** 0: derived from the limits of the process and the machine. */
export type LimitsConfig = Root["limits"];

/** Absolute paths of PEM files, read at start and when they change. */
export interface ServerTlsConfig {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly clientCaFile?: string | undefined;
}

type AccessSettings = NonNullable<Root["access"]>;

export interface AccessConfig extends Omit<AccessSettings, "tokenServer"> {
  readonly tokenServer: TokenServerConfig | undefined;
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

export type AccessRule = AccessSettings["rules"][number];

export type AccessAction = AccessRule["actions"][number];

export interface UpstreamConfig extends Omit<
  UpstreamSettings,
  | "access"
  | "aliases"
  | "credentials"
  | "endpoints"
  | "libraryPrefix"
  | "proxy"
  | "tls"
> {
  /** The key, as in an image reference: `docker.io`, `registry.corp:5000`. */
  readonly name: string;
  /** The key with `*` that it was made from, when a request named it. */
  readonly template?: string;
  /** Absolute http(s) URLs without a trailing slash; a path goes between `/v2/` and the repository. Empty for a template. */
  readonly endpoints: readonly string[];
  readonly aliases: readonly string[];
  readonly libraryPrefix: boolean;
  readonly credentials: readonly UpstreamCredential[];
  readonly proxy: ProxyConfig;
  readonly tls: Omit<UpstreamSettings["tls"], "certificateFile" | "keyFile"> & {
    /** PEM text of `tls.caFile`. */
    readonly ca: string | undefined;
    /** The certificate that the endpoint is shown: PEM texts, and the absolute paths of their files. */
    readonly clientCertificate?: {
      readonly certificate: string;
      readonly key: Secret;
      readonly certificateFile: string;
      readonly keyFile: string;
    };
  };
}

/** The forward proxies of an upstream; each is a whole URL, which may hold a password. */
export interface ProxyConfig {
  /** `upstream`: for all of its traffic; `environment`: except for hosts in NO_PROXY. */
  readonly source: "upstream" | "environment" | "none";
  readonly https: Secret | undefined;
  readonly http: Secret | undefined;
  /** Entries of NO_PROXY. */
  readonly noProxy: readonly string[];
}

export type UpstreamCredential =
  PasswordCredential | DockerConfigCredential | HelperCredential;

export interface PasswordCredential {
  readonly username: string;
  readonly password: Secret;
  /** The absolute path of its file; absent if the configuration holds the password. */
  readonly passwordFile?: string;
}

/** Docker's own `config.json`, read again when it changes. */
export interface DockerConfigCredential {
  /** Absolute. */
  readonly dockerConfigFile: string;
}

/** A program that speaks Docker's credential-helper protocol. */
export interface HelperCredential {
  /** A name in `PATH`, or an absolute path. */
  readonly helper: string;
}

export type FreshnessConfig = UpstreamSettings["freshness"];

/** A text that logs, errors and JSON do not show. */
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
