import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import type { ImageReference } from "./image-reference.ts";
import type { Mirror } from "../mirror/mirror.ts";

/** The end of the error's detail if a reference names a registry that is not an upstream. */
export const NOT_AMONG_UPSTREAMS = "is not among the upstreams";

/**
 * Asks the upstream again for everything of an image that can change: the digest of its tag, its
 * referrers, and the repository's list of tags. The manifest of a digest never changes.
 *
 * @param hasUpstream whether an upstream of this name exists
 * @throws Refusal, RegistryError
 */
export async function refreshImage(
  mirror: Pick<Mirror, "getManifest" | "refreshTag" | "refreshLists">,
  hasUpstream: (name: string) => boolean,
  { key, reference }: ImageReference,
): Promise<{ digest: Digest; changed: boolean }> {
  if (!hasUpstream(key.upstream)) {
    throw new RegistryError("NAME_UNKNOWN", {
      detail: `${key.upstream} ${NOT_AMONG_UPSTREAMS}`,
    });
  }
  if (reference.kind === "digest") {
    const { digest = reference.digest } = await mirror.getManifest(
      key,
      reference,
    );
    await mirror.refreshLists(key, digest);
    return { digest, changed: false };
  }
  const { digest, isChanged } = await mirror.refreshTag(key, reference.tag);
  await mirror.refreshLists(key, digest);
  return { digest, changed: isChanged };
}
