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

/** Interval between log lines about closed connections. */
const LOG_CUTS_EVERY_MS = 10_000;

const DEFAULT_LIMITS = { connections: 0, connectionsPerAddress: 0 };

/** Limit of the operator's listener: several times what probes, a scraper and commands need. */
const OPERATOR_CONNECTIONS = 256;

export interface BoundServers {
  /** Creates servers whose connections count against one limit. */
  readonly createServer: CreateServer;
  /** @see {@link ConnectionLimits.connectionOf} */
  readonly connectionOf: ConnectionLimits["connectionOf"];
  /** Applies changed limits. */
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
  let loggedAtMs = -Infinity;
  const limits = createConnectionLimits({
    ...boundsOf(options.limits),
    isTrustedProxy,
    onCut: (what) => {
      cuts[what] += 1;
      if (performance.now() - loggedAtMs < LOG_CUTS_EVERY_MS) return;
      loggedAtMs = performance.now();
      log.warn(
        { ...cuts },
        "connection limit reached; closing idle connections",
      );
    },
  });
  return {
    createServer: guardedBy(limits, create),
    connectionOf: (socket) => limits.connectionOf(socket),
    setLimits: (config) => limits.setBounds(boundsOf(config)),
  };
}

/** Limits the operator's listener, which must not use the descriptors that pulls need. */
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
