import {
  parseReference,
  parseRepositoryName,
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../oci/reference.ts";
import { repositoryKey, type Routes } from "../routing/routes.ts";

/** An image as operators name it. */
export interface ImageReference {
  readonly key: RepositoryKey;
  readonly reference: Reference;
}

/**
 * Parses `upstream/repository:tag` or `upstream/repository@digest`. The upstream is a key or an alias
 * of the configuration, or one that was removed from it, so that its content can be purged.
 *
 * @example "docker.io/alpine:3.20" is docker.io/library/alpine:3.20
 */
export function parseImageReference(
  text: string,
  routes: Pick<Routes, "routeRepository">,
): ImageReference | undefined {
  const written = parseImageText(text);
  if (written === undefined) return undefined;
  const { upstream, repository } = written.key;
  const routed = routes.routeRepository(
    { prefix: upstream, ns: undefined, host: undefined },
    repository,
  );
  return routed.ok
    ? { key: repositoryKey(routed), reference: written.reference }
    : written;
}

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
