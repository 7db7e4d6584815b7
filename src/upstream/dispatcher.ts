import type { SecureContext } from "node:tls";
import type { Agent } from "undici";
import type { UpstreamConfig } from "../config/config.ts";

/** Longer than the pauses within one pull, shorter than registries and load balancers hang up. */
const KEEP_ALIVE_MS = 15_000;
const MAX_KEEP_ALIVE_MS = 60_000;
/** @see faults.md P6: Node's own default, written out because undici's follows the command line */
const MAX_HEADER_BYTES = 16_384;

export interface Dispatchers {
  /** Connections are kept for the next request. */
  pooled(): Promise<Agent>;
  /** Each request has a connection of its own: for the one whose pooled connection was stale. */
  unpooled(): Promise<Agent>;
  /** Breaks everything off. */
  close(): Promise<void>;
}

/**
 * undici's agents for one upstream: its trust, its time-outs. undici is loaded with the first
 * request, because a mirror that only answers hits never needs its 6 MB.
 */
export function createDispatchers(config: UpstreamConfig): Dispatchers {
  let pooled: Promise<Agent> | undefined;
  let unpooled: Promise<Agent> | undefined;
  return {
    pooled: () => (pooled ??= createAgent(config, 1)),
    unpooled: () => (unpooled ??= createAgent(config, 0)),
    async close() {
      for (const agent of [pooled, unpooled]) {
        // One that could not be made has nothing to end.
        await (await agent?.catch(() => undefined))?.destroy();
      }
    },
  };
}

async function createAgent(
  config: UpstreamConfig,
  pipelining: 0 | 1,
): Promise<Agent> {
  const { Agent } = await import("undici");
  const { ca, insecureSkipVerify } = config.tls;
  return new Agent({
    // undici 8 would negotiate HTTP/2, where one connection carries all bodies at one pace.
    allowH2: false,
    pipelining,
    headersTimeout: config.headersTimeoutMs,
    bodyTimeout: config.idleTimeoutMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: MAX_KEEP_ALIVE_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
    connect: {
      timeout: config.connectTimeoutMs,
      rejectUnauthorized: !insecureSkipVerify,
      ...(ca === undefined ? {} : { secureContext: await trusting(ca) }),
    },
  });
}

/**
 * A private CA beside the public ones, since blobs may be redirected to public storage. One context
 * for all connections: parsing all those certificates anew costs 10 ms each time.
 */
async function trusting(ca: string): Promise<SecureContext> {
  const { createSecureContext, getCACertificates } = await import("node:tls");
  return createSecureContext({ ca: [...getCACertificates("default"), ca] });
}
