import {
  type Digest,
  digestAlgorithm,
  digestHex,
  parseDigest,
} from "./digest.ts";

declare const brand: unique symbol;

/**
 * A repository's name within its registry, as in `library/alpine`.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
 */
export type RepositoryName = string & { readonly [brand]: "RepositoryName" };

/** A tag, as in `3.20` or `latest`. */
export type Tag = string & { readonly [brand]: "Tag" };

/** How a request names a manifest. */
export type Reference =
  | { readonly kind: "tag"; readonly tag: Tag }
  | { readonly kind: "digest"; readonly digest: Digest };

/** Many clients allow 255 characters for host and name together, so they cannot push a longer name. */
export const MAX_REPOSITORY_NAME_LENGTH = 255;

/**
 * A client may write an upstream's name before the repository's (`quay.io/prometheus/prometheus`);
 * that part does not count towards the limit of the name after it.
 */
export const MAX_SPELLED_NAME_LENGTH = 2 * MAX_REPOSITORY_NAME_LENGTH + 1;

// Unambiguous: a separator always stands between two runs of letters and digits, so a failing match ends in linear time.
const COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const REPOSITORY_NAME = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

export function parseRepositoryName(text: string): RepositoryName | undefined {
  return text.length <= MAX_REPOSITORY_NAME_LENGTH && REPOSITORY_NAME.test(text)
    ? (text as RepositoryName)
    : undefined;
}

/** Returns whether a name as a client spells it, with or without an upstream's name before it, has only valid components. */
export function isSpelledName(text: string): boolean {
  return text.length <= MAX_SPELLED_NAME_LENGTH && REPOSITORY_NAME.test(text);
}

/** A registry with a port, as in `registry.corp:5000` or `[::1]:5000`: not a valid component. */
const REGISTRY_WITH_PORT =
  /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$/;

/**
 * Returns whether a client wrote a registry with a port before a valid name. The grammar has no such
 * repository, but an error that names the unknown registry is more useful to the client.
 */
export function isNameAfterPort(text: string): boolean {
  const slashAt = text.indexOf("/");
  return (
    slashAt !== -1 &&
    REGISTRY_WITH_PORT.test(text.slice(0, slashAt)) &&
    isSpelledName(text.slice(slashAt + 1))
  );
}

export function parseTag(text: string): Tag | undefined {
  return TAG.test(text) ? (text as Tag) : undefined;
}

/** A digest contains a colon and a tag never does, so no text is both. */
export function parseReference(text: string): Reference | undefined {
  const digest = parseDigest(text);
  if (digest !== undefined) return { kind: "digest", digest };
  const tag = parseTag(text);
  return tag === undefined ? undefined : { kind: "tag", tag };
}

/** Returns the reference as it appears in a URL. */
export function referenceText(reference: Reference): string {
  return reference.kind === "tag" ? reference.tag : reference.digest;
}

/** The referrers tag schema holds 64 digits, so those of a sha512 are truncated. */
const REFERRERS_TAG_HEX_LENGTH = 64;

/**
 * Returns the tag under which an upstream without the referrers API lists them, as in `sha256-` and 64 digits.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
 */
export function referrersTag(subject: Digest): Tag {
  const hex = digestHex(subject).slice(0, REFERRERS_TAG_HEX_LENGTH);
  return `${digestAlgorithm(subject)}-${hex}` as Tag;
}

/**
 * Suffixes that clients append to the tag of {@link referrersTag}: none for the list itself, the
 * others are cosign's.
 *
 * @see https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
 */
export const REFERRERS_TAG_SUFFIXES = ["", ".sig", ".att", ".sbom"] as const;

const REFERRERS_TAG = /^sha(?:256|512)-[0-9a-f]{64}(?:\.[a-z]{1,16})?$/;

/** Returns whether a tag is derived from a digest, and so lists its referrers or holds its signatures. */
export function isReferrersTag(tag: Tag): boolean {
  return REFERRERS_TAG.test(tag);
}

/** Returns the digest that a {@link isReferrersTag} is derived from; undefined if the tag has only a part of it. */
export function referrersTagSubject(tag: Tag): Digest | undefined {
  const [digest = ""] = tag.split(".");
  return parseDigest(digest.replace("-", ":"));
}

/** The canonical key of a repository, the same for every spelling of it. */
export interface RepositoryKey {
  /** A key of the configuration's `upstreams` or `hosted`. */
  readonly upstream: string;
  readonly repository: RepositoryName;
}
