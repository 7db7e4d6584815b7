import { hostname } from "node:os";
import type { Config } from "../config/config.ts";
import type { EventSink } from "../hosted/hosted.ts";
import { Notifications } from "../hosted/notifications/notifications.ts";
import type { Routes } from "../routing/routes.ts";
import type { Foundation } from "./foundation.ts";

/** The work on hosted repositories that no client waits for. */
export interface HostedUpkeep {
  readonly onEvent: EventSink;
  replaceNotifications(endpoints: Config["notifications"]): void;
  /** Ends the work, for a bounded time, after the last request. */
  stop(): Promise<void>;
}

export function buildHostedUpkeep(
  foundation: Foundation,
  routes: Pick<Routes, "listedName">,
): HostedUpkeep {
  const { config, clock, log, metrics, instanceId } = foundation;
  const notifications = new Notifications({
    endpoints: config.notifications ?? [],
    nameOf: ({ upstream, repository }) => {
      const listed = routes.listedName(upstream) ?? upstream;
      return listed === "" ? repository : `${listed}/${repository}`;
    },
    scheme: config.tls === undefined ? "http" : "https",
    source: { addr: hostname(), instanceID: instanceId },
    clock,
    log,
    metrics,
  });
  return {
    onEvent: notifications.sink,
    replaceNotifications: (endpoints) => notifications.replace(endpoints ?? []),
    stop: () => notifications.stop(),
  };
}
