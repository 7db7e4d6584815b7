import { parseDigest } from "../oci/digest.ts";
import {
  parseReference,
  parseRepositoryName,
  parseTag,
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../oci/reference.ts";
import {
  repositoryKey,
  type RouteHints,
  type Routes,
} from "../routing/routes.ts";

/** An image as operators name it. */
export interface ImageReference {
  readonly key: RepositoryKey;
  readonly reference: Reference;
}

/**
 * Parses a reference as operators and engines write it: `registry/repository:tag`,
 * `registry/repository@digest`, or a name without a registry, which is the default registry's; without
 * a tag it is `latest`. The registry is a key or an alias of the configuration, or one that was removed
 * from it, so that its content can be purged.
 *
 * @example "docker.io/alpine:3.20" is docker.io/library/alpine:3.20; so is "alpine:3.20" while
 *   docker.io is the default
 */
export function parseImageReference(
  text: string,
  routes: Pick<Routes, "routeRepository">,
): ImageReference | undefined {
  const { name, reference } = splitReference(text);
  if (reference === undefined) return undefined;
  const key = findRepository(name, routes);
  return key && { key, reference };
}

function splitReference(text: string): {
  readonly name: string;
  readonly reference: Reference | undefined;
} {
  const atAt = text.indexOf("@");
  if (atAt !== -1) {
    const digest = parseDigest(text.slice(atAt + 1));
    return {
      // Engines ignore the tag of name:tag@digest.
      name: splitTag(text.slice(0, atAt)).name,
      reference: digest && { kind: "digest", digest },
    };
  }
  const { name, tag: written = "latest" } = splitTag(text);
  const tag = parseTag(written);
  return { name, reference: tag && { kind: "tag", tag } };
}

function splitTag(text: string): {
  readonly name: string;
  readonly tag?: string;
} {
  // A colon before a slash separates a registry's port.
  const colonAt = text.lastIndexOf(":");
  return colonAt > text.lastIndexOf("/")
    ? { name: text.slice(0, colonAt), tag: text.slice(colonAt + 1) }
    : { name: text };
}

function findRepository(
  name: string,
  routes: Pick<Routes, "routeRepository">,
): RepositoryKey | undefined {
  const slashAt = name.indexOf("/");
  const registry = slashAt === -1 ? undefined : name.slice(0, slashAt);
  // A registry with a port is not a legal component of a name.
  const named =
    registry !== undefined &&
    routes.routeRepository(
      { ...NO_HINTS, prefix: registry },
      name.slice(slashAt + 1),
    );
  if (named && named.ok) return repositoryKey(named);
  const routed = routes.routeRepository(NO_HINTS, name);
  if (routed.ok) return repositoryKey(routed);
  const repository = parseRepositoryName(name.slice(slashAt + 1));
  return registry === undefined || registry === "" || repository === undefined
    ? undefined
    : { upstream: registry, repository };
}

const NO_HINTS: RouteHints = {
  prefix: undefined,
  ns: undefined,
  host: undefined,
};

/** Parses the text of {@link imageText} without the configuration: an image as the index names it. */
export function parseImageText(text: string): ImageReference | undefined {
  const slashAt = text.indexOf("/");
  const atAt = text.indexOf("@");
  const endAt = atAt === -1 ? text.lastIndexOf(":") : atAt;
  if (slashAt < 1 || endAt < slashAt) return undefined;
  const upstream = text.slice(0, slashAt);
  const repository = parseRepositoryName(text.slice(slashAt + 1, endAt));
  const reference = parseReference(text.slice(endAt + 1));
  return repository === undefined ||
    reference?.kind !== (atAt === -1 ? "tag" : "digest")
    ? undefined
    : { key: { upstream, repository }, reference };
}

/** Formats an image as {@link parseImageText} parses it. */
export function imageText({ key, reference }: ImageReference): string {
  const separator = reference.kind === "tag" ? ":" : "@";
  return `${key.upstream}/${key.repository}${separator}${referenceText(reference)}`;
}
