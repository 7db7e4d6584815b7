import type { LimitsConfig } from "../config/config.ts";
import {
  readDescriptorLimit,
  resolveConnectionLimits,
} from "../config/descriptor-limit.ts";
import {
  type ConnectionLimits,
  createConnectionLimits,
} from "../http/server/connection-limits.ts";
import type { CreateServer } from "../http/server/listeners.ts";
import type { Logger } from "../telemetry/logger.ts";

/** How often it is told that connections are cut for others. */
const CUTS_TOLD_EVERY_MS = 10_000;

const DEFAULT_LIMITS = { connections: 0, connectionsPerAddress: 0 };

/** Of the operator's listener: probes, a scraper, a command or two, and as many again. */
const OPERATOR_CONNECTIONS = 256;

export interface BoundServers {
  /** Makes servers whose connections are bounded together. */
  readonly createServer: CreateServer;
  /** @see {@link ConnectionLimits.connectionOf} */
  readonly connectionOf: ConnectionLimits["connectionOf"];
  /** Takes other bounds into force. */
  setLimits(config: LimitsConfig | undefined): void;
}

export async function boundServers(options: {
  readonly limits: LimitsConfig | undefined;
  readonly create: CreateServer;
  readonly isTrustedProxy: (address: string) => boolean;
  readonly log: Logger;
}): Promise<BoundServers> {
  const { create, isTrustedProxy, log } = options;
  const descriptors = await readDescriptorLimit();
  const boundsOf = (config: LimitsConfig | undefined) =>
    resolveConnectionLimits(config ?? DEFAULT_LIMITS, descriptors);
  const cuts = { closed: 0, refused: 0 };
  let toldAtMs = -Infinity;
  const limits = createConnectionLimits({
    ...boundsOf(options.limits),
    isTrustedProxy,
    onCut: (what) => {
      cuts[what] += 1;
      if (performance.now() - toldAtMs < CUTS_TOLD_EVERY_MS) return;
      toldAtMs = performance.now();
      log.warn({ ...cuts }, "too many connections: the longest idle make room");
    },
  });
  return {
    createServer: guardedBy(limits, create),
    connectionOf: (socket) => limits.connectionOf(socket),
    setLimits: (config) => limits.setBounds(boundsOf(config)),
  };
}

/** The same for the operator's listener, which must not spend the descriptors that pulls need. */
export function boundOperatorServers(create: CreateServer): CreateServer {
  const limits = createConnectionLimits({
    connections: OPERATOR_CONNECTIONS,
    connectionsPerAddress: OPERATOR_CONNECTIONS,
  });
  return guardedBy(limits, create);
}

function guardedBy(
  limits: ConnectionLimits,
  create: CreateServer,
): CreateServer {
  return (options, listener) => {
    const server = create(options, listener);
    limits.guard(server);
    return server;
  };
}
