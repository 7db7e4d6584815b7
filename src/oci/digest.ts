import { createHash, type Hash } from "node:crypto";

declare const brand: unique symbol;

/**
 * A content digest as in `sha256:` followed by 64 lower-case hexadecimal digits.
 * Only {@link parseDigest} and the hashers of this file create one, so paths and
 * queries may be built from it without another check.
 *
 * @see https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
 */
export type Digest = string & { readonly [brand]: "Digest" };

export type DigestAlgorithm = "sha256" | "sha512";

/** The registered algorithms that Entrepot accepts. */
export const DIGEST_ALGORITHMS: readonly DigestAlgorithm[] = [
  "sha256",
  "sha512",
];

const DIGEST = /^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/;

/** Returns undefined for upper case, other lengths and other algorithms. */
export function parseDigest(text: string): Digest | undefined {
  return DIGEST.test(text) ? (text as Digest) : undefined;
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith("sha256:") ? "sha256" : "sha512";
}

const DIGESTS_OF_NOTHING: ReadonlySet<string> = new Set(
  DIGEST_ALGORITHMS.map(
    (algorithm) => `${algorithm}:${createHash(algorithm).digest("hex")}`,
  ),
);

/**
 * Checks a size that a descriptor or an upstream announces: the digest of no bytes has size 0, and no
 * other digest has.
 *
 * @returns undefined if the size is impossible, and therefore unknown
 */
export function possibleSize(
  digest: Digest,
  sizeBytes: number | undefined,
): number | undefined {
  if (DIGESTS_OF_NOTHING.has(digest)) return 0;
  return sizeBytes === 0 ? undefined : sizeBytes;
}

/** The part after the colon. */
export function digestHex(digest: Digest): string {
  return digest.slice(digestAlgorithm(digest).length + 1);
}

export function createDigestHash(algorithm: DigestAlgorithm): Hash {
  return createHash(algorithm);
}

/** Returns the digest of the bytes so far. The hash stays usable, because a copy is finished. */
export function digestSoFar(algorithm: DigestAlgorithm, hash: Hash): Digest {
  return `${algorithm}:${hash.copy().digest("hex")}` as Digest;
}

export function digestOf(
  bytes: Uint8Array,
  algorithm: DigestAlgorithm = "sha256",
): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` as Digest;
}
