import { compilePattern } from "../../oci/glob.ts";
import { Pace } from "../../retention/victim-search.ts";
import type { IndexCursor } from "../../storage/index-cursor.ts";
import type { ImageIndex, RootName } from "../../storage/root-index.ts";
import { type ImageReference, imageText } from "../image-reference.ts";
import type { Images } from "../images.ts";

/** An image that an export was asked for. */
export interface SelectedImage {
  readonly image: ImageReference;
  /** Empty: every platform that is completely stored. */
  readonly platforms: readonly string[];
}

export interface SelectionParts {
  readonly index: Pick<ImageIndex, "listImages">;
  readonly images: Pick<Images, "resolve">;
}

/** Images of one export. */
export const MAX_EXPORTED_IMAGES = 20_000;
const ROWS_PER_QUERY = 256;

/** The images of an export by their names, and what of the request names none. */
export interface Selection {
  readonly images: ReadonlyMap<string, SelectedImage>;
  readonly failures: readonly string[];
}

/** Finds the images that an operator names by references, or by globs over the stored ones. */
export async function selectImages(
  parts: SelectionParts,
  refs: readonly string[],
  platforms: readonly string[],
): Promise<Selection> {
  const images = new Map<string, SelectedImage>();
  const failures: string[] = [];
  const add = (image: ImageReference): void => {
    images.set(imageText(image), { image, platforms });
  };
  for (const ref of refs) {
    if (ref.includes("*")) {
      const before = images.size;
      let isKnown = false;
      for await (const image of matching(parts.index, ref)) {
        isKnown = true;
        add(image);
        if (images.size > MAX_EXPORTED_IMAGES) break;
      }
      if (!isKnown && images.size === before) {
        failures.push(`no image matches ${ref}`);
      }
    } else {
      const image = await parts.images.resolve(ref);
      if (image === undefined) failures.push(`${ref} is not a reference`);
      else add(image);
    }
  }
  if (images.size > MAX_EXPORTED_IMAGES) {
    failures.push(
      `got more than ${MAX_EXPORTED_IMAGES} images; expected fewer: export them in several bundles`,
    );
  }
  return { images, failures };
}

async function* matching(
  index: Pick<ImageIndex, "listImages">,
  pattern: string,
): AsyncGenerator<ImageReference> {
  const matches = compilePattern(pattern);
  const pace = new Pace();
  let after: IndexCursor | RootName | undefined;
  do {
    const page = await index.listImages(ROWS_PER_QUERY, after);
    for (const { key, reference } of page.images) {
      const name = `${key.upstream}/${key.repository}`;
      const tag = reference.kind === "tag" ? reference.tag : undefined;
      if (matches(name, tag)) yield { key, reference };
      await pace.step();
    }
    after = page.next;
  } while (after !== undefined);
}
