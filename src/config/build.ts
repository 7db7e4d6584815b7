import { buildAccess, buildServerTls } from "./build-access.ts";
import type {
  Config,
  ListenAddress,
  Secret,
  UpstreamConfig,
} from "./config.ts";
import {
  type ConfigDocument,
  type CredentialDocument,
  isList,
  type UpstreamDocument,
} from "./document.ts";
import { parseEndpoint, parseListenAddress } from "./forms.ts";
import { parseDuration } from "./units.ts";
import type { UpstreamFiles } from "./upstream-files.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ALIASES,
  DOCKER_HUB_ENDPOINT,
} from "./well-known-upstreams.ts";

/**
 * Turns a document without faults into the configuration, frozen to its leaves.
 *
 * @param storageRoot absolute
 * @param files per upstream, read already
 * @param operatorToken of `operator.tokenFile`
 * @param resolve makes a path of the file absolute
 */
export function buildConfig(
  document: ConfigDocument,
  storageRoot: string,
  files: ReadonlyMap<string, UpstreamFiles>,
  operatorToken: Secret | undefined,
  resolve: (path: string) => string,
): Config {
  const { listen, operator, offline, log, trustedProxies, limits } = document;
  const auditFile = document.audit.file;
  const tls = buildServerTls(document.tls, resolve);
  const access = buildAccess(document.access, resolve);
  return freeze({
    listen: (isList(listen) ? listen : [listen]).map(listenAddress),
    ...(tls === undefined ? {} : { tls }),
    operator: {
      listen:
        operator.listen === false ? undefined : listenAddress(operator.listen),
      ...(operatorToken === undefined || !operator.tokenFile
        ? {}
        : {
            token: operatorToken,
            tokenFile: resolve(operator.tokenFile),
          }),
    },
    storage: { root: storageRoot },
    offline,
    upstreams: Object.entries(document.upstreams ?? {}).map(
      ([name, upstream]) =>
        buildUpstream(name, upstream, files.get(name), resolve),
    ),
    ...(access === undefined ? {} : { access }),
    trustedProxies,
    limits: {
      connections: limits.connections,
      connectionsPerAddress: limits.connectionsPerAddress,
      fills: limits.fills,
    },
    audit: {
      file: !auditFile
        ? undefined
        : auditFile === "-"
          ? auditFile
          : resolve(auditFile),
    },
    log: { level: log.level, format: log.format },
  });
}

function buildUpstream(
  name: string,
  upstream: UpstreamDocument,
  files: UpstreamFiles | undefined,
  resolve: (path: string) => string,
): UpstreamConfig {
  const isHub = name === DOCKER_HUB;
  const { freshness, tls } = upstream;
  const endpoints = upstream.endpoints ?? [
    isHub ? DOCKER_HUB_ENDPOINT : `https://${name}`,
  ];
  const aliases = upstream.aliases ?? (isHub ? [...DOCKER_HUB_ALIASES] : []);
  return {
    name,
    isDefault: upstream.default,
    endpoints: endpoints.map((text) => known(parseEndpoint(text), text)),
    aliases,
    hostnames: upstream.hostnames,
    libraryPrefix:
      upstream.libraryPrefix ?? (isHub || aliases.includes(DOCKER_HUB)),
    credentials: credentialList(upstream).flatMap((credential, index) => {
      const password = files?.passwords[index];
      if (password === undefined) return [];
      const { username, passwordFile } = credential;
      return passwordFile === undefined
        ? [{ username, password }]
        : [{ username, password, passwordFile: resolve(passwordFile) }];
    }),
    freshness: {
      tagTtlMs: duration(freshness.tagTtl),
      rules: freshness.rules.map(({ match, ttl }) => ({
        match,
        ttlMs: duration(ttl),
      })),
      staleIfErrorMs: duration(freshness.staleIfError),
      staleWhileRevalidateMs: duration(freshness.staleWhileRevalidate),
      notFoundTtlMs: duration(freshness.notFoundTtl),
    },
    tokenRealms: upstream.tokenRealms,
    concurrency: upstream.concurrency,
    connectTimeoutMs: duration(upstream.connectTimeout),
    headersTimeoutMs: duration(upstream.headersTimeout),
    idleTimeoutMs: duration(upstream.idleTimeout),
    tls: {
      ca: files?.ca,
      ...(tls.caFile ? { caFile: resolve(tls.caFile) } : {}),
      insecureSkipVerify: tls.insecureSkipVerify,
    },
  };
}

function credentialList({
  credentials,
}: UpstreamDocument): readonly CredentialDocument[] {
  if (credentials === undefined) return [];
  return isList(credentials) ? credentials : [credentials];
}

function listenAddress(text: string): ListenAddress {
  return known(parseListenAddress(text), text);
}

function duration(text: string): number {
  return known(parseDuration(text), text);
}

/** The schema has judged the text by the same parser. */
function known<T>(value: T | undefined, text: string): T {
  if (value === undefined) throw new Error(`not validated: ${text}`);
  return value;
}

function freeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) freeze(part);
  }
  return value;
}
