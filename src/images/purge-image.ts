import type { TagIndex } from "../storage/tag-index.ts";
import type { Tag } from "../oci/reference.ts";
import { Pace } from "../retention/victim-search.ts";
import { type ImageReference, imageText } from "./image-reference.ts";
import type { Images } from "./images.ts";

/** Tags read in one step. */
const TAGS_IN_A_STEP = 1_000;

/** Drops a cached image, and returns the names that it had. */
export type PurgeImage = (image: ImageReference) => Promise<readonly string[]>;

/**
 * Creates the purge of cached images by the names that clients use. A digest stands for all tags of
 * its repository that point to it: clients resolve a tag first and delete the digest.
 */
export function createPurge(
  images: Pick<Images, "remove">,
  index: Pick<TagIndex, "listTags" | "getTag">,
): PurgeImage {
  return async (image) => {
    const names: ImageReference[] = [image];
    for (const tag of await findTags(index, image)) {
      names.push({ key: image.key, reference: { kind: "tag", tag } });
    }
    const purged: string[] = [];
    for (const name of names) {
      if ((await images.remove(name)) !== undefined) {
        purged.push(imageText(name));
      }
    }
    return purged;
  };
}

/** Finds the tags that point to a digest; none for a tag. */
async function findTags(
  index: Pick<TagIndex, "listTags" | "getTag">,
  { key, reference }: ImageReference,
): Promise<readonly Tag[]> {
  if (reference.kind !== "digest") return [];
  const found: Tag[] = [];
  const pace = new Pace();
  let last: Tag | undefined;
  do {
    const tags = await index.listTags(key, TAGS_IN_A_STEP, last);
    for (const tag of tags) {
      const row = await index.getTag(key, tag);
      if (row?.digest === reference.digest) found.push(tag);
      // The index answers synchronously: let other requests run in between.
      await pace.step();
    }
    last = tags.length < TAGS_IN_A_STEP ? undefined : tags.at(-1);
  } while (last !== undefined);
  return found;
}
