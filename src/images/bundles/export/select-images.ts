import { compilePattern } from "../../../oci/glob.ts";
import type { RepositoryKey } from "../../../oci/reference.ts";
import { Pace } from "../../../retention/victim-search.ts";
import type { Routes } from "../../../routing/routes.ts";
import type { IndexCursor } from "../../../storage/index-cursor.ts";
import type { ImageIndex, RootName } from "../../../storage/root-index.ts";
import type { TagIndex } from "../../../storage/tag-index.ts";
import { expandPattern } from "../../image-pattern.ts";
import { type ImageReference, imageText } from "../../image-reference.ts";
import type { Images } from "../../images.ts";
import type { ListEntry, ListText } from "../../lists/list-entry.ts";
import { parseListAside } from "../../lists/parse-list-aside.ts";
import type { ExportRequest } from "../bundle.ts";

/** An image that an export was asked for. */
export interface SelectedImage {
  readonly image: ImageReference;
  /** Empty: every platform that is completely stored. */
  readonly platforms: readonly string[];
}

export interface SelectionParts {
  readonly index: Pick<ImageIndex, "listImages"> & Pick<TagIndex, "listTags">;
  readonly images: Pick<Images, "resolve">;
  readonly routes: Pick<Routes, "routeRepository">;
}

/** Images of one export. */
export const MAX_EXPORTED_IMAGES = 10_000;
const ROWS_PER_QUERY = 256;

/** The images of an export by their names, and what of the request names none. */
export interface Selection {
  readonly images: ReadonlyMap<string, SelectedImage>;
  readonly failures: readonly string[];
}

/** Finds the images that references, globs over the stored images, and lists name. */
export async function selectImages(
  parts: SelectionParts,
  { refs, lists, platforms }: ExportRequest,
): Promise<Selection> {
  const selecting = new Selecting(parts, platforms);
  for (const ref of refs) {
    await (ref.includes("*")
      ? selecting.addPattern(ref)
      : selecting.addReference(ref, ref, []));
  }
  for (const list of lists) await selecting.addList(list);
  return selecting;
}

class Selecting implements Selection {
  readonly images = new Map<string, SelectedImage>();
  readonly failures: string[] = [];
  readonly #parts: SelectionParts;
  readonly #platforms: readonly string[];

  constructor(parts: SelectionParts, platforms: readonly string[]) {
    this.#parts = parts;
    this.#platforms = platforms;
  }

  async addPattern(pattern: string): Promise<void> {
    // As engines write it, if nothing matches what is written.
    const expanded = expandPattern(pattern, this.#parts.routes);
    for (const one of new Set([pattern, expanded ?? pattern])) {
      let isFound = false;
      for await (const image of matching(this.#parts.index, one)) {
        isFound = true;
        if (!this.#add(image, [])) return;
      }
      if (isFound) return;
    }
    this.failures.push(`no image matches ${pattern}`);
  }

  /** @param origin names the reference in a failure */
  async addReference(
    ref: string,
    origin: string,
    platforms: readonly string[],
  ): Promise<void> {
    const image = await this.#parts.images.resolve(ref);
    if (image === undefined) this.failures.push(`${origin} is not a reference`);
    else this.#add(image, platforms);
  }

  async addList(list: ListText): Promise<void> {
    const { entries, faults } = await parseListAside(list);
    for (const { origin, message } of faults) {
      this.failures.push(`${origin}: ${message}`);
    }
    for (const entry of entries) await this.#addEntry(entry);
  }

  async #addEntry(entry: ListEntry): Promise<void> {
    const { origin, platforms } = entry;
    if (entry.kind === "reference") {
      await this.addReference(entry.ref, `${origin}: ${entry.ref}`, platforms);
      return;
    }
    const named = await this.#parts.images.resolve(
      `${entry.repository}:latest`,
    );
    if (named === undefined) {
      this.failures.push(`${origin}: ${entry.repository} is not a repository`);
      return;
    }
    let isFound = false;
    for await (const image of tagged(this.#parts.index, named.key)) {
      if (!entry.selects(image.reference.tag)) continue;
      isFound = true;
      if (!this.#add(image, platforms)) return;
    }
    if (!isFound) {
      this.failures.push(
        `${origin}: no stored tag of ${entry.repository} matches`,
      );
    }
  }

  /** @returns false if there are too many */
  #add(image: ImageReference, platforms: readonly string[]): boolean {
    const name = imageText(image);
    const wanted = platforms.length === 0 ? this.#platforms : platforms;
    const before = this.images.get(name)?.platforms ?? wanted;
    this.images.set(name, {
      image,
      platforms:
        wanted.length === 0 || before.length === 0
          ? []
          : [...new Set([...before, ...wanted])],
    });
    if (this.images.size <= MAX_EXPORTED_IMAGES) return true;
    this.failures.push(
      `got more than ${MAX_EXPORTED_IMAGES} images; expected fewer: export them in several bundles`,
    );
    return false;
  }
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

async function* tagged(index: Pick<TagIndex, "listTags">, key: RepositoryKey) {
  let last: string | undefined;
  do {
    const tags = await index.listTags(key, ROWS_PER_QUERY, last);
    for (const tag of tags) {
      yield { key, reference: { kind: "tag" as const, tag } };
    }
    last = tags.length < ROWS_PER_QUERY ? undefined : tags.at(-1);
  } while (last !== undefined);
}
