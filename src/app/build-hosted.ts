import type { Config } from "../config/config.ts";
import type { GarbageCollection } from "../hosted/garbage-collection.ts";
import type { HostedRoutes } from "../http/registry/hosted-routes.ts";
import type { Routes } from "../routing/routes.ts";
import { buildHostedUpkeep } from "./build-hosted-upkeep.ts";
import type { BuiltMirror } from "./build-mirror.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { Foundation } from "./foundation.ts";

/** The parts that the services of hosted repositories are built from. */
export interface HostedParts {
  readonly foundation: Foundation;
  readonly storage: BuiltStorage;
  readonly mirror: BuiltMirror;
  readonly routes: Routes;
}

export interface BuiltHosted {
  /** Answers requests for hosted repositories; undefined: there are none. */
  readonly routes: Pick<HostedRoutes, "answer"> | undefined;
  readonly garbage: GarbageCollection;
  readonly replaceNotifications: (endpoints: Config["notifications"]) => void;
  /** Starts the background work, once the storage has recovered. */
  start(): void;
  /** Ends the background work, after the last request. */
  stop(): Promise<void>;
}

/** Creates the services of hosted repositories. */
export function buildHosted(parts: HostedParts): BuiltHosted {
  const { foundation, routes, storage } = parts;
  const upkeep = buildHostedUpkeep(foundation, routes, storage);
  return {
    routes: undefined,
    replaceNotifications: (endpoints) => upkeep.replaceNotifications(endpoints),
    garbage: upkeep.garbage,
    start: () => upkeep.start(),
    stop: () => upkeep.stop(),
  };
}
