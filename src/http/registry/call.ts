import type { IncomingMessage, ServerResponse } from "node:http";
import type { HostedRepository, Sender } from "../../hosted/hosted.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import type {
  RoutedHosted,
  RoutedRegistry,
  RoutedRepository,
  RouteRefusal,
  Routes,
} from "../../routing/routes.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { DistributionTarget } from "../../oci/path.ts";
import type { Admission } from "../client-auth/access-control.ts";
import type { BodyTexts } from "../fast-path/body-texts.ts";
import type { Exchange } from "./exchange.ts";
import type { RequestTarget } from "./request-target.ts";
import type { Head } from "./send.ts";
import type { UnknownRegistries } from "./unknown-registries.ts";

/** A target within a repository. */
export type RepositoryTarget = Extract<
  DistributionTarget,
  { readonly repository: string }
>;

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
 * Returns the registry and the repository that a request means, and adds them to its log line.
 *
 * @throws RegistryError if the request names no registry of ours, or the name is invalid
 */
export function route(
  call: Call,
  repository: string,
): RoutedRepository | RoutedHosted {
  const { requested, request, routes, exchange } = call;
  const routed = requested.route(routes, request.headers.host, repository);
  if (!routed.ok) throw refusalOf(call, routed);
  if (routed.kind === "hosted") {
    exchange.hosted = routed.hosted.name;
  } else {
    exchange.upstream = routed.upstream.name;
    exchange.template = routed.upstream.template;
  }
  exchange.repository = routed.repository;
  return routed;
}

/** The routed repository as the mirror takes it. */
export function targetOf(routed: RoutedRepository): RepositoryKey {
  return { upstream: routed.upstream.name, repository: routed.repository };
}

/** The routed repository as the services of hosted content take it. */
export function hostedOf(routed: RoutedHosted): HostedRepository {
  return {
    key: { upstream: routed.hosted.name, repository: routed.repository },
    config: routed.hosted,
  };
}

/** Returns the sender of a request, for events and the audit log. */
export function senderOf({ exchange, request }: Call): Sender {
  return {
    user: exchange.user,
    client: exchange.client,
    userAgent: request.headers["user-agent"],
    host: request.headers.host,
    method: request.method ?? "",
  };
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
