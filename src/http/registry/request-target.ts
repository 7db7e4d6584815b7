import { LRUCache } from "lru-cache";
import type {
  RoutedHosted,
  RoutedRepository,
  RouteRefusal,
  Routes,
} from "../../routing/routes.ts";
import {
  type DistributionPath,
  type DistributionTarget,
  type ParsedPath,
  parseDistributionPath,
  type PathRefusal,
} from "../../oci/path.ts";
import { referenceText } from "../../oci/reference.ts";
import type { RequestKind } from "./exchange.ts";

/** Each takes at most 2 KiB and a few objects. */
const MAX_TARGETS = 1_000;

/** Longer targets have a query and are seldom repeated. */
const MAX_REMEMBERED_LENGTH = 2_048;

/** A parsed request target, and the repository that it was routed to last. */
export class RequestTarget {
  readonly ok = true;
  readonly path: DistributionPath & { readonly ok: true };
  readonly kind: RequestKind;
  /** Tag or digest as written in the path. */
  readonly reference: string | undefined;
  #routes: Routes | undefined;
  #host: string | undefined;
  #routed: RoutedRepository | RoutedHosted | RouteRefusal | undefined;

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
   * Returns the upstream and the repository that are meant. Keeps the last result, which is valid for
   * the same routes and the same `Host`.
   *
   * @param repository the repository in the path
   */
  route(
    routes: Routes,
    host: string | undefined,
    repository: string,
  ): RoutedRepository | RoutedHosted | RouteRefusal {
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
 * Parses request targets. Repeated targets are parsed once: parsing costs more than the rest of the
 * work on a hit from memory.
 */
export function createTargetReader(): (
  rawTarget: string,
) => RequestTarget | PathRefusal {
  const known = new LRUCache<string, RequestTarget>({ max: MAX_TARGETS });
  return (rawTarget) => {
    const before = known.get(rawTarget);
    if (before !== undefined) return before;
    const path: ParsedPath = parseDistributionPath(rawTarget);
    // Rejected targets are not kept: they would displace valid ones.
    if (!path.ok) return path;
    const target = new RequestTarget(path);
    // The target of an upload is used for one blob only.
    if (
      rawTarget.length <= MAX_REMEMBERED_LENGTH &&
      path.target.kind !== "upload"
    ) {
      known.set(rawTarget, target);
    }
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
