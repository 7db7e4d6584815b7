import { LRUCache } from "lru-cache";
import type {
  RoutedRepository,
  RouteRefusal,
  UpstreamRoutes,
} from "../../mirror/upstream-routes.ts";
import {
  type DistributionPath,
  type DistributionTarget,
  type ParsedPath,
  parseDistributionPath,
  type PathRefusal,
} from "../../oci/path.ts";
import { referenceText } from "../../oci/reference.ts";
import type { RequestKind } from "./exchange.ts";

/** Of 2 KiB at most, and a few objects each. */
const MAX_TARGETS = 1_000;

/** Longer ones have a query that few repeat. */
const MAX_REMEMBERED_LENGTH = 2_048;

/** A request target that was read, and what it meant to whom asked with it last. */
export class RequestTarget {
  readonly ok = true;
  readonly path: DistributionPath & { readonly ok: true };
  readonly kind: RequestKind;
  /** Tag or digest as it stands in the path. */
  readonly reference: string | undefined;
  #routes: UpstreamRoutes | undefined;
  #host: string | undefined;
  #routed: RoutedRepository | RouteRefusal | undefined;

  constructor(path: DistributionPath & { readonly ok: true }) {
    const { target } = path;
    this.path = path;
    this.kind = kindOf(target);
    this.reference =
      target.kind === "manifest"
        ? referenceText(target.reference)
        : "digest" in target
          ? target.digest
          : undefined;
  }

  /**
   * Which upstream and repository are meant. One answer is kept: it is the same until the routes
   * are others or the client names the mirror otherwise.
   *
   * @param repository that of the path
   */
  route(
    routes: UpstreamRoutes,
    host: string | undefined,
    repository: string,
  ): RoutedRepository | RouteRefusal {
    if (
      this.#routed === undefined ||
      this.#routes !== routes ||
      this.#host !== host
    ) {
      const { prefix, ns } = this.path;
      this.#routed = routes.routeRepository({ prefix, ns, host }, repository);
      this.#routes = routes;
      this.#host = host;
    }
    return this.#routed;
  }
}

/**
 * Reads request targets; those that come again and again only once, for that costs more than all
 * else that is done with one.
 */
export function createTargetReader(): (
  rawTarget: string,
) => RequestTarget | PathRefusal {
  const known = new LRUCache<string, RequestTarget>({ max: MAX_TARGETS });
  return (rawTarget) => {
    const before = known.get(rawTarget);
    if (before !== undefined) return before;
    const path: ParsedPath = parseDistributionPath(rawTarget);
    // What was refused is not kept: it would push out what is asked for.
    if (!path.ok) return path;
    const target = new RequestTarget(path);
    if (rawTarget.length <= MAX_REMEMBERED_LENGTH) known.set(rawTarget, target);
    return target;
  };
}

function kindOf(target: DistributionTarget): RequestKind {
  switch (target.kind) {
    case "manifest":
      return target.reference.kind === "tag" ? "tag" : "manifest";
    case "upload":
      return "other";
    case "ping":
    case "catalog":
    case "tags":
    case "blob":
    case "referrers":
      return target.kind;
    default:
      return target satisfies never;
  }
}
