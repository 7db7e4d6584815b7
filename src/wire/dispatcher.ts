import { isIP } from "node:net";
import type { SecureContext } from "node:tls";
import type { Agent, buildConnector, Dispatcher } from "undici";
import type { UpstreamConfig } from "../config/config.ts";
import type { AddressPolicy } from "./address-policy.ts";
import { addressRefused } from "./faults.ts";
import type { NameLookup } from "./name-lookup.ts";
import { chooseProxyFor } from "./proxy-choice.ts";
import { readIntoSpareBuffers } from "./socket-buffers.ts";
import { withoutBrackets } from "./url-host.ts";

/** Longer than the pauses within one pull, shorter than the idle time-outs of registries and load balancers. */
const KEEP_ALIVE_MS = 15_000;
const MAX_KEEP_ALIVE_MS = 60_000;
/** Node's own default, set explicitly because undici's default follows the command line. */
const MAX_HEADER_BYTES = 16_384;

export interface Dispatchers {
  /** Returns a dispatcher that keeps its connections for the next request. */
  pooled(url: URL): Promise<Dispatcher>;
  /** Returns a dispatcher that opens a connection for each request; used after a pooled one was stale. */
  unpooled(url: URL): Promise<Dispatcher>;
  /** Destroys all connections and fails their requests. */
  close(): Promise<void>;
}

export interface DispatcherOptions {
  readonly config: UpstreamConfig;
  readonly lookup: NameLookup;
  readonly policy: AddressPolicy;
  /**
   * `endpoint`: sends the client certificate and notes the address as the endpoint's home.
   * `foreign`: dials only addresses that the policy allows.
   */
  readonly side: "endpoint" | "foreign";
}

type Connector = buildConnector.connector;

/**
 * Creates undici's agents for one endpoint, or for the hosts that it redirects to, with their trust,
 * time-outs and proxies. undici is loaded with the first request: a mirror that only answers hits
 * does not need its 6 MB.
 */
export function createDispatchers(options: DispatcherOptions): Dispatchers {
  const agents = new Map<string, Promise<Dispatcher>>();
  const agentFor = (url: URL, pipelining: 0 | 1): Promise<Dispatcher> => {
    const proxy = chooseProxyFor(url, options.config.proxy);
    const key = `${pipelining} ${proxy ?? ""}`;
    let agent = agents.get(key);
    if (agent === undefined) {
      agent =
        proxy === undefined
          ? createAgent(options, pipelining)
          : createProxyAgent(options, pipelining, proxy);
      agents.set(key, agent);
    }
    return agent;
  };
  return {
    pooled: (url) => agentFor(url, 1),
    unpooled: (url) => agentFor(url, 0),
    async close() {
      for (const agent of agents.values()) {
        // An agent that could not be created holds no connection.
        await (await agent.catch(() => undefined))?.destroy();
      }
    },
  };
}

async function createAgent(
  options: DispatcherOptions,
  pipelining: 0 | 1,
): Promise<Agent> {
  const undici = await import("undici");
  const { config, lookup, policy, side } = options;
  const connector = (
    judge?: (hostname: string, address: string) => Error | undefined,
  ): Promise<Connector> =>
    tlsOptions(options).then((tls) => {
      const common = {
        ...tls,
        allowH2: false,
        timeout: config.connectTimeoutMs,
        lookup: lookup.asFunction(judge),
      };
      const small = undici.buildConnector(common);
      // A pause after each read is what bounds the bandwidth: the less a read takes, the evener the pace.
      if (config.bandwidthBytesPerSecond !== Infinity) return small;
      const large = undici.buildConnector({
        ...common,
        onread: readIntoSpareBuffers,
      });
      // TLS decrypts into pieces of 16 KiB, whatever buffer it gets.
      return (target, callback) =>
        (target.protocol === "https:" ? small : large)(target, callback);
    });
  return new undici.Agent({
    ...agentOptions(config, pipelining),
    connect:
      side === "endpoint"
        ? homeNotingConnector(await connector(), policy)
        : await guardedConnector(connector, policy),
  });
}

/** The proxy resolves names and decides which addresses it dials; the address policy does not apply. */
async function createProxyAgent(
  options: DispatcherOptions,
  pipelining: 0 | 1,
  proxy: string,
): Promise<Dispatcher> {
  const { ProxyAgent, Pool } = await import("undici");
  const { config, lookup } = options;
  const tls = await tlsOptions(options);
  return new ProxyAgent({
    ...agentOptions(config, pipelining),
    uri: proxy,
    connectTimeout: config.connectTimeoutMs,
    requestTls: tls,
    // The proxy is not the endpoint: it does not get the client certificate.
    proxyTls: {
      ...(await tlsOptions({ ...options, side: "foreign" })),
      lookup: lookup.asFunction(),
    },
    clientFactory: (origin, poolOptions) =>
      new Pool(origin, {
        ...poolOptions,
        headersTimeout: config.headersTimeoutMs,
      }),
  });
}

function agentOptions(
  config: UpstreamConfig,
  pipelining: 0 | 1,
): Agent.Options {
  return {
    // undici 8 would negotiate HTTP/2, where one connection carries all bodies at one pace.
    allowH2: false,
    pipelining,
    headersTimeout: config.headersTimeoutMs,
    bodyTimeout: config.idleTimeoutMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: MAX_KEEP_ALIVE_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
  };
}

function homeNotingConnector(
  connect: Connector,
  policy: AddressPolicy,
): Connector {
  return (target, callback) =>
    connect(target, (...result) => {
      const address = result[1]?.remoteAddress;
      if (address !== undefined) policy.noteHome(address);
      callback(...result);
    });
}

/** `node:net` does not call the look-up for an IP address in a URL, so such an address is judged here. */
async function guardedConnector(
  connector: (
    judge: (hostname: string, address: string) => Error | undefined,
  ) => Promise<Connector>,
  policy: AddressPolicy,
): Promise<Connector> {
  const judge = (hostname: string, address: string): Error | undefined => {
    const refused = policy.refuse(hostname, address);
    return refused === undefined ? undefined : addressRefused(refused);
  };
  const connect = await connector(judge);
  return (target, callback) => {
    const host = withoutBrackets(target.hostname);
    const refusal = isIP(host) === 0 ? undefined : judge(host, host);
    if (refusal === undefined) return connect(target, callback);
    queueMicrotask(() => callback(refusal, null));
    return undefined;
  };
}

interface TlsOptions {
  readonly rejectUnauthorized: boolean;
  readonly secureContext?: SecureContext;
}

/**
 * Trusts a private CA in addition to the public ones, because blobs may be redirected to public
 * storage. All connections share one context: parsing the certificates takes 10 ms.
 */
async function tlsOptions({
  config,
  side,
}: DispatcherOptions): Promise<TlsOptions> {
  const { ca, clientCertificate, insecureSkipVerify } = config.tls;
  const rejectUnauthorized = !insecureSkipVerify;
  const identity = side === "endpoint" ? clientCertificate : undefined;
  if (ca === undefined && identity === undefined) return { rejectUnauthorized };
  const { createSecureContext, getCACertificates } = await import("node:tls");
  const secureContext = createSecureContext({
    ...(ca === undefined ? {} : { ca: [...getCACertificates("default"), ca] }),
    ...(identity === undefined
      ? {}
      : { cert: identity.certificate, key: identity.key.reveal() }),
  });
  return { rejectUnauthorized, secureContext };
}
