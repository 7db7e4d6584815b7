import { hostname } from "node:os";
import type { Config } from "../config/config.ts";
import { Collection } from "../hosted/collection.ts";
import type { EventSink } from "../hosted/hosted.ts";
import { Notifications } from "../hosted/notifications/notifications.ts";
import { Retention } from "../hosted/retention/retention.ts";
import { RetentionSchedule } from "../hosted/retention/retention-schedule.ts";
import type { Routes } from "../routing/routes.ts";
import { scheduleUnref } from "../telemetry/clock.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { Foundation } from "./foundation.ts";

/** The background work on hosted repositories. */
export interface HostedUpkeep {
  readonly onEvent: EventSink;
  readonly garbage: Pick<Collection, "collect" | "reclaim">;
  replaceNotifications(endpoints: Config["notifications"]): void;
  /** Starts the work, once the storage has recovered. */
  start(): void;
  /** Ends the work, for a bounded time, after the last request. */
  stop(): Promise<void>;
}

export function buildHostedUpkeep(
  foundation: Foundation,
  routes: Pick<Routes, "listedName">,
  { cache, evictor }: Pick<BuiltStorage, "cache" | "evictor">,
): HostedUpkeep {
  const { clock, log, audit, live, overrides } = foundation;
  const { hostedSchedule: schedule = scheduleUnref } = overrides;
  const { index } = cache;
  const notifications = buildNotifications(foundation, routes);
  const onEvent: EventSink = (event) => {
    notifications.sink(event);
    if (event.action === "delete") collection.notify();
  };
  const registries = () => live.config.hosted;
  const retention = new Retention({
    index,
    registries,
    clock,
    log,
    audit,
    onEvent,
  });
  const retentionSchedule = new RetentionSchedule({
    retention,
    registries,
    clock,
    log,
    schedule,
  });
  const collection = new Collection({
    index,
    evictor,
    retention,
    clock,
    log,
    schedule,
  });
  return {
    onEvent,
    garbage: collection,
    replaceNotifications: (endpoints) => notifications.replace(endpoints),
    start: () => {
      collection.start();
      retentionSchedule.start();
    },
    stop: async () => {
      await Promise.all([retention.stop(), retentionSchedule.stop()]);
      await Promise.all([collection.stop(), notifications.stop()]);
    },
  };
}

function buildNotifications(
  { config, clock, log, metrics, instanceId }: Foundation,
  routes: Pick<Routes, "listedName">,
): Notifications {
  return new Notifications({
    endpoints: config.notifications,
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
}
