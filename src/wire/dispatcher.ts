import { isIP } from "node:net";
import type { SecureContext } from "node:tls";
import type { Agent, buildConnector, Dispatcher } from "undici";
import type { UpstreamConfig } from "../config/config.ts";
import type { AddressPolicy } from "./address-policy.ts";
import { addressRefused } from "./faults.ts";
import type { NameLookup } from "./name-lookup.ts";
import { chooseProxyFor } from "./proxy-choice.ts";
import { withoutBrackets } from "./url-host.ts";

/** Longer than the pauses within one pull, shorter than registries and load balancers hang up. */
const KEEP_ALIVE_MS = 15_000;
const MAX_KEEP_ALIVE_MS = 60_000;
/** @see faults.md P6: Node's own default, written out because undici's follows the command line */
const MAX_HEADER_BYTES = 16_384;

export interface Dispatchers {
  /** Connections are kept for the next request. */
  pooled(url: URL): Promise<Dispatcher>;
  /** Each request has a connection of its own: for the one whose pooled connection was stale. */
  unpooled(url: URL): Promise<Dispatcher>;
  /** Breaks everything off. */
  close(): Promise<void>;
}

export interface DispatcherOptions {
  readonly config: UpstreamConfig;
  readonly lookup: NameLookup;
  readonly policy: AddressPolicy;
  /**
   * `endpoint`: it is shown the client certificate, and where it is found is its home.
   * `foreign`: no address is dialled that the policy refuses.
   */
  readonly side: "endpoint" | "foreign";
}

type Connector = buildConnector.connector;

/**
 * undici's agents for one endpoint or for what it leads to: trust, time-outs, proxies. undici is
 * loaded with the first request, because a mirror that only answers hits never needs its 6 MB.
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
        // One that could not be made has nothing to end.
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
    tlsOptions(options).then((tls) =>
      undici.buildConnector({
        ...tls,
        allowH2: false,
        timeout: config.connectTimeoutMs,
        lookup: lookup.asFunction(judge),
      }),
    );
  return new undici.Agent({
    ...agentOptions(config, pipelining),
    connect:
      side === "endpoint"
        ? notingHome(await connector(), policy)
        : await guarded(connector, policy),
  });
}

/** Whom the proxy dials is the proxy's to judge: names are not resolved here. */
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
    // The proxy is no endpoint: it is not shown what the endpoint is.
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

function notingHome(connect: Connector, policy: AddressPolicy): Connector {
  return (target, callback) =>
    connect(target, (...result) => {
      const address = result[1]?.remoteAddress;
      if (address !== undefined) policy.noteHome(address);
      callback(...result);
    });
}

/** `node:net` asks no look-up about an address, so one that stands in the URL is judged before. */
async function guarded(
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
 * A private CA beside the public ones, since blobs may be redirected to public storage. One context
 * for all connections: parsing all those certificates anew costs 10 ms each time.
 */
async function tlsOptions({
  config,
  side,
}: DispatcherOptions): Promise<TlsOptions> {
  const { ca, clientCertificate, insecureSkipVerify } = config.tls;
  const rejectUnauthorized = !insecureSkipVerify;
  const shown = side === "endpoint" ? clientCertificate : undefined;
  if (ca === undefined && shown === undefined) return { rejectUnauthorized };
  const { createSecureContext, getCACertificates } = await import("node:tls");
  const secureContext = createSecureContext({
    ...(ca === undefined ? {} : { ca: [...getCACertificates("default"), ca] }),
    ...(shown === undefined
      ? {}
      : { cert: shown.certificate, key: shown.key.reveal() }),
  });
  return { rejectUnauthorized, secureContext };
}
