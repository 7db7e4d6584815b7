import {
  parseReference,
  parseRepositoryName,
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../oci/reference.ts";
import type { UpstreamRoutes } from "../mirror/upstream-routes.ts";

/** One image of the cache, as operators name it. */
export interface ImageReference {
  readonly key: RepositoryKey;
  readonly reference: Reference;
}

/**
 * Reads `upstream/repository:tag` or `upstream/repository@digest`. The upstream is a key or an
 * alias of the configuration, or, so that what is left of it can be dropped, one that was.
 *
 * @example "docker.io/alpine:3.20" is docker.io/library/alpine:3.20
 */
export function parseImageReference(
  text: string,
  routes: Pick<UpstreamRoutes, "routeRepository">,
): ImageReference | undefined {
  const written = parseImageText(text);
  if (written === undefined) return undefined;
  const { upstream, repository } = written.key;
  const routed = routes.routeRepository(
    { prefix: upstream, ns: undefined, host: undefined },
    repository,
  );
  return routed.ok
    ? {
        key: { upstream: routed.upstream.name, repository: routed.repository },
        reference: written.reference,
      }
    : written;
}

/** The inverse of {@link imageText}: an image of the index, whatever the configuration makes of its name. */
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

/** The text that {@link parseImageText} reads back. */
export function imageText({ key, reference }: ImageReference): string {
  const separator = reference.kind === "tag" ? ":" : "@";
  return `${key.upstream}/${key.repository}${separator}${referenceText(reference)}`;
}
