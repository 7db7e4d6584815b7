import type { Config } from "./config/config.ts";
import {
  readDescriptorLimit,
  resolveConnectionLimits,
} from "./config/descriptor-limit.ts";
import { createConnectionLimits } from "./http/connection-limits.ts";
import type { CreateServer } from "./http/listeners.ts";
import type { Logger } from "./telemetry/logger.ts";

/** How often it is told that connections are cut for others. */
const CUTS_TOLD_EVERY_MS = 10_000;

/** Servers whose connections are bounded together. */
export async function limitConnections(
  config: Config,
  create: CreateServer,
  isTrustedProxy: (address: string) => boolean,
  log: Logger,
): Promise<CreateServer> {
  const cuts = { closed: 0, refused: 0 };
  let toldAtMs = -Infinity;
  const limits = createConnectionLimits({
    ...resolveConnectionLimits(
      config.limits ?? { connections: 0, connectionsPerAddress: 0 },
      await readDescriptorLimit(),
    ),
    isTrustedProxy,
    onCut: (what) => {
      cuts[what] += 1;
      if (performance.now() - toldAtMs < CUTS_TOLD_EVERY_MS) return;
      toldAtMs = performance.now();
      log.warn({ ...cuts }, "too many connections: the longest idle make room");
    },
  });
  return (options, listener) => {
    const server = create(options, listener);
    limits.guard(server);
    return server;
  };
}
