import type {
  AccessConfig,
  Config,
  ProxyConfig,
  ServerTlsConfig,
  UpstreamConfig,
  UpstreamCredential,
} from "./config.ts";
import { formatListenAddress, isTemplate } from "./schema/forms.ts";
import {
  formatAmount,
  formatDailyShare,
  formatDuration,
  formatDurationOrOff,
} from "./schema/units.ts";

/**
 * The configuration in force, written as a configuration: every key, units in human form, paths
 * absolute, secrets hidden. With passwords in files it can be loaded again and means the same.
 */
export function describeConfig(config: Config): Record<string, unknown> {
  const { listen, operator, storage, eviction, scrub, offline, log } = config;
  const [first, ...others] = listen.map(formatListenAddress);
  return {
    listen: others.length === 0 ? first : [first, ...others],
    ...(config.tls === undefined ? {} : { tls: describeServerTls(config.tls) }),
    operator: {
      listen:
        operator.listen === undefined
          ? false
          : formatListenAddress(operator.listen),
      ...(operator.tokenFile === undefined
        ? {}
        : { tokenFile: operator.tokenFile }),
    },
    storage: { root: storage.root },
    eviction: {
      maxSize: formatAmount(eviction.maxSize),
      minFree: formatAmount(eviction.minFree),
      maxIdle: formatDuration(eviction.maxIdleMs),
      keep: eviction.keep,
    },
    scrub: {
      background: formatDailyShare(scrub.dailyShare),
      onRead: formatDurationOrOff(scrub.onReadMs),
    },
    offline,
    upstreams: Object.fromEntries(
      [...config.upstreams, ...(config.upstreamTemplates ?? [])].map(
        (upstream) => [upstream.name, describeUpstream(upstream)],
      ),
    ),
    ...(config.access === undefined
      ? {}
      : { access: describeAccess(config.access) }),
    trustedProxies: config.trustedProxies ?? [],
    ...(config.limits === undefined ? {} : { limits: config.limits }),
    ...(config.audit?.file === undefined
      ? {}
      : { audit: { file: config.audit.file } }),
    log: { level: log.level, format: log.format },
  };
}

function describeServerTls(tls: ServerTlsConfig): Record<string, string> {
  const { certificateFile, keyFile, clientCaFile } = tls;
  return clientCaFile === undefined
    ? { certificateFile, keyFile }
    : { certificateFile, keyFile, clientCaFile };
}

function describeAccess(access: AccessConfig): Record<string, unknown> {
  const { htpasswdFile, tokenServer, anonymous, anonymousNetworks, rules } =
    access;
  return {
    ...(htpasswdFile === undefined ? {} : { htpasswdFile }),
    ...(tokenServer === undefined
      ? {}
      : {
          tokenServer: {
            realm: tokenServer.realm,
            service: tokenServer.service,
            issuer: tokenServer.issuer,
            [tokenServer.keys.kind === "jwks" ? "jwksFile" : "certificateFile"]:
              tokenServer.keys.file,
          },
        }),
    anonymous,
    anonymousNetworks,
    rules,
  };
}

/** Writes a described configuration as YAML. Loads the YAML library. */
export async function formatConfig(
  described: Readonly<Record<string, unknown>>,
): Promise<string> {
  const { stringify } = await import("yaml");
  return stringify(described, {
    aliasDuplicateObjects: false,
    lineWidth: 0,
  });
}

function describeUpstream(upstream: UpstreamConfig): Record<string, unknown> {
  const { credentials, freshness, tls } = upstream;
  return {
    default: upstream.isDefault,
    ...(isTemplate(upstream.name) ? {} : { endpoints: upstream.endpoints }),
    aliases: upstream.aliases,
    hostnames: upstream.hostnames,
    libraryPrefix: upstream.libraryPrefix,
    credentials: credentials.map(describeCredential),
    access: "shared",
    freshness: {
      tagTtl: formatDuration(freshness.tagTtlMs),
      rules: freshness.rules.map(({ match, ttlMs }) => ({
        match,
        ttl: formatDuration(ttlMs),
      })),
      staleIfGone: formatDuration(freshness.staleIfGoneMs),
      staleIfError: formatDuration(freshness.staleIfErrorMs),
      staleWhileRevalidate: formatDuration(freshness.staleWhileRevalidateMs),
      notFoundTtl: formatDuration(freshness.notFoundTtlMs),
    },
    allow: upstream.allow,
    deny: upstream.deny,
    redirectHosts: upstream.redirectHosts,
    tokenRealms: upstream.tokenRealms,
    concurrency: upstream.concurrency,
    bandwidth:
      upstream.bandwidthBytesPerSecond === Infinity
        ? 0
        : formatAmount({ bytes: upstream.bandwidthBytesPerSecond }),
    connectTimeout: formatDuration(upstream.connectTimeoutMs),
    headersTimeout: formatDuration(upstream.headersTimeoutMs),
    idleTimeout: formatDuration(upstream.idleTimeoutMs),
    ...describeProxy(upstream.proxy),
    tls: {
      ...(tls.caFile === undefined ? {} : { caFile: tls.caFile }),
      ...(tls.clientCertificate === undefined
        ? {}
        : {
            certificateFile: tls.clientCertificate.certificateFile,
            keyFile: tls.clientCertificate.keyFile,
          }),
      insecureSkipVerify: tls.insecureSkipVerify,
    },
  };
}

/** Those of the environment are no part of the configuration. */
function describeProxy({ source, https }: ProxyConfig): { proxy?: string } {
  if (source === "none") return { proxy: "none" };
  if (source === "environment" || https === undefined) return {};
  const url = new URL(https.reveal());
  if (url.username === "" && url.password === "") return { proxy: url.href };
  url.username = "";
  url.password = "";
  return { proxy: url.href.replace("//", `//${https.toString()}@`) };
}

function describeCredential(
  credential: UpstreamCredential,
): Record<string, string> {
  if ("helper" in credential) return { helper: credential.helper };
  if ("dockerConfigFile" in credential) {
    return { dockerConfigFile: credential.dockerConfigFile };
  }
  const { username, password, passwordFile } = credential;
  return passwordFile === undefined
    ? { username, password: password.toString() }
    : { username, passwordFile };
}
