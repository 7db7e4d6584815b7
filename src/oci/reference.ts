import { type Digest, parseDigest } from "./digest.ts";

declare const brand: unique symbol;

/**
 * A repository's name within its registry, as in `library/alpine`.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
 */
export type RepositoryName = string & { readonly [brand]: "RepositoryName" };

/** A tag, as in `3.20` or `latest`. */
export type Tag = string & { readonly [brand]: "Tag" };

/** What a manifest is asked for by. */
export type Reference =
  | { readonly kind: "tag"; readonly tag: Tag }
  | { readonly kind: "digest"; readonly digest: Digest };

/** Many clients allow 255 for host and name together; a longer name can never have been pushed by them. */
export const MAX_REPOSITORY_NAME_LENGTH = 255;

const COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const REPOSITORY_NAME = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

export function parseRepositoryName(text: string): RepositoryName | undefined {
  return text.length <= MAX_REPOSITORY_NAME_LENGTH && REPOSITORY_NAME.test(text)
    ? (text as RepositoryName)
    : undefined;
}

export function parseTag(text: string): Tag | undefined {
  return TAG.test(text) ? (text as Tag) : undefined;
}

/** A tag never holds a colon and a digest always does, so one text is never both. */
export function parseReference(text: string): Reference | undefined {
  const digest = parseDigest(text);
  if (digest !== undefined) return { kind: "digest", digest };
  const tag = parseTag(text);
  return tag === undefined ? undefined : { kind: "tag", tag };
}

/** The text of a reference as it stands in a URL. */
export function referenceText(reference: Reference): string {
  return reference.kind === "tag" ? reference.tag : reference.digest;
}
