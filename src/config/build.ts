import { buildAccess, buildServerTls } from "./build-access.ts";
import type {
  AmountConfig,
  Config,
  ListenAddress,
  Secret,
  UpstreamConfig,
  UpstreamCredential,
} from "./config.ts";
import {
  type ConfigDocument,
  type CredentialDocument,
  isList,
  type UpstreamDocument,
} from "./document.ts";
import {
  isTemplate,
  parseEndpoint,
  parseListenAddress,
} from "./schema/forms.ts";
import { helperProgram } from "./files/helper-program.ts";
import { chooseProxy } from "./proxy.ts";
import {
  parseAmount,
  parseDailyShare,
  parseDurationOrOff,
  parseDuration,
  parseSize,
} from "./schema/units.ts";
import type { UpstreamFiles } from "./files/upstream-files.ts";
import {
  DOCKER_HUB,
  DOCKER_HUB_ALIASES,
  DOCKER_HUB_ENDPOINT,
} from "./schema/well-known-upstreams.ts";

/**
 * Turns a document without faults into the configuration, frozen to its leaves.
 *
 * @param storageRoot absolute
 * @param files per upstream, read already
 * @param operatorToken of `operator.tokenFile`
 * @param resolve makes a path of the file absolute
 * @param env where upstreams without a proxy of their own find one
 */
export function buildConfig(
  document: ConfigDocument,
  storageRoot: string,
  files: ReadonlyMap<string, UpstreamFiles>,
  operatorToken: Secret | undefined,
  resolve: (path: string) => string,
  env: Readonly<Record<string, string | undefined>>,
): Config {
  const { listen, operator, eviction, scrub, offline, log } = document;
  const { trustedProxies, limits } = document;
  const auditFile = document.audit.file;
  const tls = buildServerTls(document.tls, resolve);
  const access = buildAccess(document.access, resolve);
  const upstreams = Object.entries(document.upstreams ?? {}).map(
    ([name, upstream]) =>
      buildUpstream(name, upstream, files.get(name), resolve, env),
  );
  const templates = upstreams.filter(({ name }) => isTemplate(name));
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
    eviction: {
      maxSize: amount(eviction.maxSize),
      minFree: amount(eviction.minFree),
      maxIdleMs: duration(eviction.maxIdle),
      keep: eviction.keep,
    },
    scrub: {
      dailyShare: known(parseDailyShare(scrub.background), "scrub"),
      onReadMs: known(parseDurationOrOff(scrub.onRead), "scrub"),
    },
    offline,
    upstreams: upstreams.filter(({ name }) => !isTemplate(name)),
    ...(templates.length === 0 ? {} : { upstreamTemplates: templates }),
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
  env: Readonly<Record<string, string | undefined>>,
): UpstreamConfig {
  const isHub = name === DOCKER_HUB;
  const { freshness, tls } = upstream;
  const endpoints = isTemplate(name)
    ? []
    : (upstream.endpoints ?? [isHub ? DOCKER_HUB_ENDPOINT : `https://${name}`]);
  const aliases = upstream.aliases ?? (isHub ? [...DOCKER_HUB_ALIASES] : []);
  return {
    name,
    isDefault: upstream.default,
    endpoints: endpoints.map((text) => known(parseEndpoint(text), text)),
    aliases,
    hostnames: upstream.hostnames,
    libraryPrefix:
      upstream.libraryPrefix ?? (isHub || aliases.includes(DOCKER_HUB)),
    credentials: credentialList(upstream).flatMap((credential, index) =>
      buildCredential(credential, files?.passwords[index], resolve),
    ),
    freshness: {
      tagTtlMs: duration(freshness.tagTtl),
      rules: freshness.rules.map(({ match, ttl }) => ({
        match,
        ttlMs: duration(ttl),
      })),
      staleIfGoneMs: duration(freshness.staleIfGone),
      staleIfErrorMs: duration(freshness.staleIfError),
      staleWhileRevalidateMs: duration(freshness.staleWhileRevalidate),
      notFoundTtlMs: duration(freshness.notFoundTtl),
    },
    allow: upstream.allow,
    deny: upstream.deny,
    redirectHosts: upstream.redirectHosts,
    tokenRealms: upstream.tokenRealms,
    concurrency: upstream.concurrency,
    bandwidthBytesPerSecond:
      known(parseSize(upstream.bandwidth), "bandwidth") || Infinity,
    connectTimeoutMs: duration(upstream.connectTimeout),
    headersTimeoutMs: duration(upstream.headersTimeout),
    idleTimeoutMs: duration(upstream.idleTimeout),
    proxy: chooseProxy(upstream.proxy, env),
    tls: {
      ca: files?.ca,
      ...(tls.caFile ? { caFile: resolve(tls.caFile) } : {}),
      ...(files?.clientCertificate === undefined
        ? {}
        : { clientCertificate: files.clientCertificate }),
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

function buildCredential(
  credential: CredentialDocument,
  password: Secret | undefined,
  resolve: (path: string) => string,
): UpstreamCredential[] {
  const { username, passwordFile, dockerConfigFile, helper } = credential;
  if (helper !== undefined) {
    return [{ helper: helperProgram(helper, resolve) }];
  }
  if (dockerConfigFile !== undefined) {
    return [{ dockerConfigFile: resolve(dockerConfigFile) }];
  }
  if (username === undefined || password === undefined) return [];
  return passwordFile === undefined
    ? [{ username, password }]
    : [{ username, password, passwordFile: resolve(passwordFile) }];
}

function listenAddress(text: string): ListenAddress {
  return known(parseListenAddress(text), text);
}

function duration(text: string): number {
  return known(parseDuration(text), text);
}

function amount(value: string | number): AmountConfig {
  return known(parseAmount(value), String(value));
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
