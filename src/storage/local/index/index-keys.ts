import { type Digest, digestHex, parseDigest } from "../../../oci/digest.ts";
import { IndexError } from "../../metadata-index.ts";
import type { RepositoryKey } from "../../../oci/reference.ts";

/** Returns the path of a repository, for example `docker.io/library/alpine`. An upstream's name has no slash. */
export function pathOf(key: RepositoryKey): string {
  return `${key.upstream}/${key.repository}`;
}

/** Returns the bytes of a digest, which are its form in the tables. */
export function bytesOf(digest: Digest): Buffer {
  return Buffer.from(digestHex(digest), "hex");
}

/** @returns undefined if the bytes have the length of no known algorithm, as in a damaged index */
export function parseDigestBytes(bytes: Buffer): Digest | undefined {
  const algorithm = bytes.length === 32 ? "sha256" : "sha512";
  return parseDigest(`${algorithm}:${bytes.toString("hex")}`);
}

/** @throws IndexError if the bytes have the length of no known algorithm */
export function digestFrom(bytes: Buffer): Digest {
  const digest = parseDigestBytes(bytes);
  if (digest === undefined)
    throw new IndexError(
      `got a digest of ${bytes.length} bytes; expected 32 or 64`,
    );
  return digest;
}
