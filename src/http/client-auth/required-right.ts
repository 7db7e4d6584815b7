import type { IncomingMessage } from "node:http";
import type { DistributionPath } from "../../oci/path.ts";
import {
  registryName,
  type RoutedHosted,
  type RoutedRepository,
  type RouteRefusal,
  type Routes,
} from "../../routing/routes.ts";
import type { Right } from "./policy.ts";
import { methodClass, ROUTE_RIGHTS } from "./route-rights.ts";

/** The target of a request, and how it is routed. */
export interface RequestedRoute {
  readonly path: DistributionPath;
  route(
    routes: Routes,
    host: string | undefined,
    repository: string,
  ): RoutedRepository | RoutedHosted | RouteRefusal;
}

const ENTER: Right = { kind: "enter" };
const CATALOG: Right = { kind: "catalog" };

/**
 * Returns the right that a request needs. A name that maps to no registry needs `enter` only: there
 * is no content to protect, and the route responds with 404. So does a push to a mirrored
 * repository: the response is 405, whether the content exists or not.
 */
export function requiredRight(
  { method, headers }: IncomingMessage,
  requested: RequestedRoute,
  routes: Routes,
): Right {
  const { target } = requested.path;
  const action = ROUTE_RIGHTS[target.kind][methodClass(method)];
  if (action === "enter") return ENTER;
  if (action === "catalog") return CATALOG;
  if (!("repository" in target)) {
    throw new TypeError(
      `got a ${target.kind} request; expected a route with a repository`,
    );
  }
  const routed = requested.route(routes, headers.host, target.repository);
  if (!routed.ok) return ENTER;
  const isHosted = routed.kind === "hosted";
  if (action === "push" && !isHosted) return ENTER;
  const name = `${registryName(routed)}/${routed.repository}`;
  return { kind: "repository", action, name, isHosted };
}

/**
 * Returns whether a request reads, and not from a hosted repository. Unlike {@link requiredRight} it
 * allocates nothing: every hit of the mirror calls it.
 */
export function isMirroredRead(
  { method, headers }: IncomingMessage,
  requested: RequestedRoute,
  routes: Routes,
): boolean {
  const { target } = requested.path;
  if (methodClass(method) !== "read") return false;
  if (!("repository" in target)) return true;
  if (ROUTE_RIGHTS[target.kind].read !== "pull") return false;
  const routed = requested.route(routes, headers.host, target.repository);
  return !routed.ok || routed.kind === "mirrored";
}

/** Returns whether a request may change something, by its method or by the right that it needs. */
export function isWriting({ method }: IncomingMessage, right: Right): boolean {
  return (
    methodClass(method) !== "read" ||
    (right.kind === "repository" && right.action !== "pull")
  );
}
