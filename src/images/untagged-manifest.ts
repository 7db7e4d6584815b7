import {
  type Digest,
  digestAlgorithm,
  digestHex,
  parseDigest,
} from "../oci/digest.ts";
import type { RepositoryKey } from "../oci/reference.ts";
import type {
  HostedManifests,
  UntaggedManifest,
} from "../storage/hosted-index.ts";

/**
 * Finds one of the manifests that {@link HostedManifests.listUntaggedManifests} lists.
 *
 * @returns undefined if a tag or a manifest of the repository names it, or its subject is there
 */
export async function findUntagged(
  index: Pick<HostedManifests, "listUntaggedManifests">,
  key: RepositoryKey,
  digest: Digest,
): Promise<UntaggedManifest | undefined> {
  const [next] = await index.listUntaggedManifests(
    key,
    1,
    digestBefore(digest),
  );
  return next?.digest === digest ? next : undefined;
}

/** Returns a digest that precedes this one in every list, with no other between them. */
function digestBefore(digest: Digest): Digest | undefined {
  const hex = digestHex(digest);
  const before = BigInt(`0x${hex}`) - 1n;
  return before < 0n
    ? undefined
    : parseDigest(
        `${digestAlgorithm(digest)}:${before.toString(16).padStart(hex.length, "0")}`,
      );
}
