import type { IncomingMessage } from "node:http";
import type { AccessAction } from "../../config/config.ts";
import type { Routes } from "../../routing/routes.ts";
import { isLoopbackClient } from "../server/loopback.ts";

/** The rights of one client while there is no `access`. */
export interface OpenAccess {
  /** @param name `registry/repository`, canonical */
  may(action: AccessAction, name: string): boolean;
}

/**
 * Judges clients while there is no `access`: every client may pull; pushes to and deletions from a
 * hosted registry are decided by its `anonymousPush`; only loopback clients may delete from mirrored
 * repositories.
 */
export function createOpenAccess(
  request: IncomingMessage,
  routes: Routes,
): OpenAccess {
  let isLoopback: boolean | undefined;
  const isFromHere = (): boolean =>
    (isLoopback ??= isLoopbackClient(request, {
      hostnames: routes.hostnames,
      origin: "none",
    }));
  return {
    may(action, name) {
      if (action === "pull") return true;
      const hosted = routes.findHosted(registryOf(name));
      if (hosted === undefined) return action === "delete" && isFromHere();
      switch (hosted.anonymousPush) {
        case "anywhere":
          return true;
        case "loopback":
          return isFromHere();
        case "none":
          return false;
        default:
          return hosted.anonymousPush satisfies never;
      }
    },
  };
}

/** Returns the reason of a refusal, and the setting by which the operator permits the request. */
export function explainOpenRefusal(routes: Routes, name: string): string {
  const hosted = routes.findHosted(registryOf(name));
  if (hosted === undefined) {
    return "while there is no access, only clients on this machine may delete from mirrored repositories; configure access with a rule that has the action delete";
  }
  const key = `hosted.${hosted.name}.anonymousPush`;
  return hosted.anonymousPush === "none"
    ? `${key}: none permits no push and no deletion; set it to loopback or anywhere, or configure access with users`
    : `${key}: loopback permits pushes and deletions by clients on this machine only; set it to anywhere, or configure access with users`;
}

/** Returns the key of the upstream or hosted registry in `registry/repository`; no key has a slash. */
export function registryOf(name: string): string {
  return name.slice(0, name.indexOf("/"));
}
