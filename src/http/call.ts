import type { IncomingMessage, ServerResponse } from "node:http";
import type { Target } from "../mirror/mirror.ts";
import type {
  RoutedRegistry,
  RoutedRepository,
  RouteHints,
  UpstreamRoutes,
} from "../mirror/upstream-routes.ts";
import { RegistryError } from "../oci/errors.ts";
import type { DistributionPath } from "../oci/path.ts";
import type { Admission } from "./client-auth/access-control.ts";
import type { Exchange } from "./exchange.ts";

/** One request on its way through the routes. */
export interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly exchange: Exchange;
  readonly isHead: boolean;
  readonly path: DistributionPath;
  readonly admission: Admission;
  /** Those that the request was judged by, whatever is reloaded meanwhile. */
  readonly routes: UpstreamRoutes;
}

/**
 * Which upstream and repository a request means; told to its log line too.
 *
 * @throws RegistryError where no upstream is meant, or the name is none
 */
export function route(call: Call, repository: string): RoutedRepository {
  const routed = call.routes.routeRepository(hintsOf(call), repository);
  if (!routed.ok) throw new RegistryError(routed.code, routed);
  call.exchange.upstream = routed.upstream.name;
  call.exchange.repository = routed.repository;
  return routed;
}

/** The same for the mirror. */
export function targetOf(routed: RoutedRepository): Target {
  return { upstream: routed.upstream.name, repository: routed.repository };
}

/** For what has no repository: an upstream that is named must be one of ours. @throws RegistryError */
export function routeRegistry(call: Call): RoutedRegistry {
  const routed = call.routes.routeRegistry(hintsOf(call));
  if (!routed.ok) throw new RegistryError(routed.code, routed);
  return routed;
}

function hintsOf({ path, request }: Call): RouteHints {
  return { prefix: path.prefix, ns: path.ns, host: request.headers.host };
}

/** @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#registry-proxying */
export function namespaceHeader(routed: {
  readonly namespace: string | undefined;
}): Record<string, string> {
  return routed.namespace === undefined
    ? {}
    : { "OCI-Namespace": routed.namespace };
}
