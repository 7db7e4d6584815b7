import type { Config, UpstreamConfig, UpstreamCredential } from "./config.ts";
import { formatListenAddress } from "./forms.ts";
import { formatAmount, formatDailyShare, formatDuration } from "./units.ts";

/**
 * The configuration in force, written as a configuration: every key, units in human form, paths
 * absolute, secrets hidden. With passwords in files it can be loaded again and means the same.
 */
export function describeConfig(config: Config): Record<string, unknown> {
  const { listen, operator, storage, eviction, scrub, offline, log } = config;
  const [first, ...others] = listen.map(formatListenAddress);
  return {
    listen: others.length === 0 ? first : [first, ...others],
    operator: {
      listen:
        operator.listen === undefined
          ? false
          : formatListenAddress(operator.listen),
    },
    storage: { root: storage.root },
    eviction: {
      maxSize: formatAmount(eviction.maxSize),
      minFree: formatAmount(eviction.minFree),
      maxIdle: formatDuration(eviction.maxIdleMs),
      keep: eviction.keep,
    },
    scrub: { background: formatDailyShare(scrub.dailyShare) },
    offline,
    upstreams: Object.fromEntries(
      config.upstreams.map((upstream) => [
        upstream.name,
        describeUpstream(upstream),
      ]),
    ),
    log: { level: log.level, format: log.format },
  };
}

/** {@link describeConfig} as YAML. Loads the YAML library. */
export async function formatConfig(config: Config): Promise<string> {
  const { stringify } = await import("yaml");
  return stringify(describeConfig(config), {
    aliasDuplicateObjects: false,
    lineWidth: 0,
  });
}

function describeUpstream(upstream: UpstreamConfig): Record<string, unknown> {
  const { credentials, freshness, tls } = upstream;
  return {
    default: upstream.isDefault,
    endpoints: upstream.endpoints,
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
      staleIfError: formatDuration(freshness.staleIfErrorMs),
      staleWhileRevalidate: formatDuration(freshness.staleWhileRevalidateMs),
      notFoundTtl: formatDuration(freshness.notFoundTtlMs),
    },
    tokenRealms: upstream.tokenRealms,
    concurrency: upstream.concurrency,
    connectTimeout: formatDuration(upstream.connectTimeoutMs),
    headersTimeout: formatDuration(upstream.headersTimeoutMs),
    idleTimeout: formatDuration(upstream.idleTimeoutMs),
    tls: {
      ...(tls.caFile === undefined ? {} : { caFile: tls.caFile }),
      insecureSkipVerify: tls.insecureSkipVerify,
    },
  };
}

function describeCredential({
  username,
  password,
  passwordFile,
}: UpstreamCredential): Record<string, string> {
  return passwordFile === undefined
    ? { username, password: password.toString() }
    : { username, passwordFile };
}
