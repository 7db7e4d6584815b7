import { type Digest, digestHex, parseDigest } from "../../../oci/digest.ts";
import { IndexError } from "../../metadata-index.ts";
import type { RepositoryKey } from "../../../oci/reference.ts";

/** A repository's path, as in `docker.io/library/alpine`; an upstream's name holds no slash. */
export function pathOf(key: RepositoryKey): string {
  return `${key.upstream}/${key.repository}`;
}

/** A digest as the index's tables hold it. */
export function bytesOf(digest: Digest): Buffer {
  return Buffer.from(digestHex(digest), "hex");
}

/** @throws IndexError when the row holds no digest */
export function digestFrom(bytes: Buffer): Digest {
  const algorithm = bytes.length === 32 ? "sha256" : "sha512";
  const digest = parseDigest(`${algorithm}:${bytes.toString("hex")}`);
  if (digest === undefined) throw new IndexError("a digest of a wrong length");
  return digest;
}
