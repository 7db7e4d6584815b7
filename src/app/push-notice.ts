import type { Config } from "../config/config.ts";
import { isLoopbackAddress } from "../http/server/client-address.ts";
import type { Logger } from "../telemetry/logger.ts";

/**
 * Logs that only clients on this machine may push, if the server listens for others: in a container
 * no client is on its machine.
 */
export function logPushLimit(
  { access, hosted, listen }: Pick<Config, "access" | "hosted" | "listen">,
  log: Logger,
): void {
  const isLocalOnly = listen.some(
    ({ host }) => isLoopbackAddress(host) || host === "localhost",
  );
  if (access !== undefined || isLocalOnly) return;
  const limited = hosted.filter(
    ({ anonymousPush }) => anonymousPush === "loopback",
  );
  const [first] = limited;
  if (first === undefined) return;
  log.info(
    {
      registries: limited.map(({ name }) => name),
      set: `hosted.${first.name}.anonymousPush: anywhere, or access with users`,
    },
    "only clients on this machine may push; no client of a container is on its machine",
  );
}
