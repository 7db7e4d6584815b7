import {
  repositoryKey,
  type RouteHints,
  type Routes,
} from "../routing/routes.ts";

const NO_HINTS: RouteHints = {
  prefix: undefined,
  ns: undefined,
  host: undefined,
};

/**
 * Expands a pattern that is written as engines write references, to one over
 * `registry/repository[:tag]`: without a registry it is of the default registry, and one component is
 * in its `library`.
 *
 * @returns undefined if the pattern names its registry by a wildcard, or one that is not configured
 * @example "alpine:3.*" is "docker.io/library/alpine:3.*" while docker.io is the default
 */
export function expandPattern(
  pattern: string,
  routes: Pick<Routes, "routeRepository">,
): string | undefined {
  const colonAt = pattern.lastIndexOf(":");
  // A colon before a slash separates a registry's port.
  const endAt = colonAt > pattern.lastIndexOf("/") ? colonAt : pattern.length;
  const name = pattern.slice(0, endAt);
  const tag = pattern.slice(endAt);
  const slashAt = name.indexOf("/");
  const registry = slashAt === -1 ? undefined : name.slice(0, slashAt);
  if (/^\**$/.test(registry ?? name)) return undefined;
  const expand = (hints: RouteHints, rest: string): string | undefined => {
    const isComponent = !rest.includes("/") && !rest.includes("**");
    const probe = isComponent ? "a" : "a/b";
    const routed = routes.routeRepository(hints, probe);
    if (!routed.ok) return undefined;
    const { upstream, repository } = repositoryKey(routed);
    const inserted = repository.slice(0, -probe.length);
    return `${upstream}/${inserted}${rest}${tag}`;
  };
  const named =
    registry !== undefined &&
    expand({ ...NO_HINTS, prefix: registry }, name.slice(slashAt + 1));
  if (named) return named;
  // A dot or a port names a registry; the default registry has no such first component.
  return registry !== undefined && /[.:*]/.test(registry)
    ? undefined
    : expand(NO_HINTS, name);
}
