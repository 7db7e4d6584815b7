import type { IncomingMessage, ServerResponse } from "node:http";
import type { RepositoryKey } from "../../oci/reference.ts";
import type {
  RoutedRegistry,
  RoutedRepository,
  RouteRefusal,
  Routes,
} from "../../routing/routes.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { Admission } from "../client-auth/access-control.ts";
import type { BodyTexts } from "../fast-path/body-texts.ts";
import type { Exchange } from "./exchange.ts";
import type { RequestTarget } from "./request-target.ts";
import type { Head } from "./send.ts";
import type { UnknownRegistries } from "./unknown-registries.ts";

/** One request on its way through the routes. */
export interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly exchange: Exchange;
  readonly isHead: boolean;
  readonly requested: RequestTarget;
  readonly admission: Admission;
  /** The routes that the request was authorised with; a reload does not change them. */
  readonly routes: Routes;
  readonly bodyTexts: BodyTexts;
  readonly unknownRegistries: UnknownRegistries;
}

/**
 * Returns the upstream and the repository that a request means, and adds them to its log line.
 *
 * @throws RegistryError if the request names no upstream of ours, or the name is invalid
 */
export function route(call: Call, repository: string): RoutedRepository {
  const { requested, request, routes } = call;
  const routed = requested.route(routes, request.headers.host, repository);
  if (!routed.ok) throw refusalOf(call, routed);
  if (routed.kind === "hosted") {
    throw new RegistryError("NAME_UNKNOWN", { detail: "not mirrored" });
  }
  call.exchange.upstream = routed.upstream.name;
  call.exchange.template = routed.upstream.template;
  call.exchange.repository = routed.repository;
  return routed;
}

/** The routed repository as the mirror takes it. */
export function targetOf(routed: RoutedRepository): RepositoryKey {
  return { upstream: routed.upstream.name, repository: routed.repository };
}

/** Routes a request without a repository. @throws RegistryError if it names an unknown registry */
export function routeRegistry(call: Call): RoutedRegistry {
  const { prefix, ns } = call.requested.path;
  const { host } = call.request.headers;
  const routed = call.routes.routeRegistry({ prefix, ns, host });
  if (!routed.ok) throw refusalOf(call, routed);
  return routed;
}

function refusalOf(call: Call, refusal: RouteRefusal): RegistryError {
  if (refusal.unknown !== undefined) {
    call.unknownRegistries.note(refusal.unknown);
  }
  return new RegistryError(refusal.code, refusal);
}

/** @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#registry-proxying */
export function addNamespace(
  head: Head,
  { namespace }: { readonly namespace: string | undefined },
): void {
  if (namespace !== undefined) head.push("OCI-Namespace", namespace);
}
