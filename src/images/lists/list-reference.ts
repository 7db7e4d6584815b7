import { parseDigest } from "../../oci/digest.ts";
import { parseRepositoryName, parseTag } from "../../oci/reference.ts";

/** What a fault expects instead of a text that is not a reference. */
export const REFERENCE_FORM =
  "[REGISTRY/]REPOSITORY[:TAG][@DIGEST], in lower case";

/** Returns where patterns of tags belong, if a text that is not a reference is one; otherwise nothing. */
export function patternHint(text: string): string {
  return /[*?]/.test(text)
    ? "; patterns of tags belong in a list in the YAML of skopeo sync, as images-by-tag-regex or images-by-semver"
    : "";
}

const DOMAIN_COMPONENT = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
/** @see https://github.com/distribution/reference/blob/main/regexp.go */
const DOMAIN = new RegExp(
  `^(?:${DOMAIN_COMPONENT}(?:\\.${DOMAIN_COMPONENT})*|\\[[0-9A-Fa-f:]+\\])(?::[0-9]{1,5})?$`,
);
/** A name that engines take for the identifier of a local image. */
const IDENTIFIER = /^[0-9a-f]{64}$/;

/**
 * Reads a reference as engines do. With a tag and a digest the digest counts, and the tag is left out.
 *
 * @example "alpine:3@sha256:…" is "alpine@sha256:…"
 * @returns undefined if it is not a reference
 */
export function readListReference(text: string): string | undefined {
  const atAt = text.indexOf("@");
  const digest = atAt === -1 ? undefined : parseDigest(text.slice(atAt + 1));
  if (atAt !== -1 && digest === undefined) return undefined;
  const named = atAt === -1 ? text : text.slice(0, atAt);
  // A colon before a slash separates a registry's port.
  const colonAt = named.lastIndexOf(":");
  const hasTag = colonAt > named.lastIndexOf("/");
  const name = hasTag ? named.slice(0, colonAt) : named;
  if (hasTag && parseTag(named.slice(colonAt + 1)) === undefined) {
    return undefined;
  }
  if (!isRepository(name)) return undefined;
  return digest === undefined ? named : `${name}@${digest}`;
}

/** Returns the reference with the registry that engines add to a name without one. */
export function withRegistry(ref: string): string {
  const slashAt = ref.indexOf("/");
  return slashAt !== -1 && isRegistry(ref.slice(0, slashAt))
    ? ref
    : `docker.io/${ref}`;
}

/** Returns whether it is a repository's name, with or without a registry before it. */
export function isRepository(name: string): boolean {
  if (IDENTIFIER.test(name)) return false;
  if (parseRepositoryName(name) !== undefined) return true;
  const slashAt = name.indexOf("/");
  return (
    slashAt !== -1 &&
    isRegistry(name.slice(0, slashAt)) &&
    parseRepositoryName(name.slice(slashAt + 1)) !== undefined
  );
}

/** As engines decide whether the first component is a registry. */
function isRegistry(text: string): boolean {
  return DOMAIN.test(text) && (/[.:A-Z]/.test(text) || text === "localhost");
}
