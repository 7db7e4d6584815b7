import type { Mirror } from "../../mirror/mirror.ts";
import { Pace } from "../../retention/victim-search.ts";
import { parseTag, type RepositoryKey, type Tag } from "../../oci/reference.ts";
import type { Routes } from "../../routing/routes.ts";
import {
  type ImageReference,
  imageText,
  parseImageReference,
} from "../image-reference.ts";
import type {
  ListEntry,
  ListText,
  ParsedList,
  TagsEntry,
} from "../lists/list-entry.ts";
import { patternHint } from "../lists/list-reference.ts";
import { unlessAborted } from "../unless-aborted.ts";
import { MAX_WARM_IMAGES, type WarmRequest } from "./warm-request.ts";

const TAGS_PER_PAGE = 1_000;
const REFERENCE_FORMS =
  "registry/repository:tag, registry/repository@digest or a name of the default registry";

/** An image to make present. */
export interface WarmTarget {
  readonly image: ImageReference;
  /** Empty: every platform. */
  readonly platforms: readonly string[];
}

/** A repository whose tags are listed before it is known which of them are images to make present. */
export interface TagsTarget {
  readonly key: RepositoryKey;
  readonly entry: TagsEntry;
}

export interface TargetParts {
  readonly mirror: Pick<Mirror, "listTags" | "refreshTagList">;
  readonly parseList: (
    list: ListText,
    signal: AbortSignal,
  ) => ParsedList | Promise<ParsedList>;
  readonly routes: Pick<Routes, "routeRepository">;
  /** Whether an upstream of this name exists, or a template makes one. */
  readonly isUpstream: (name: string) => boolean;
  /** Whether the registry is hosted here. */
  readonly isHosted: (name: string) => Promise<boolean>;
  /** Whether a hosted image is stored. */
  readonly isStored: (image: ImageReference) => Promise<boolean>;
  readonly isOffline: () => boolean;
}

/** Receives what is to be reported of a list or of a reference. */
export interface TargetReport {
  /** Called with what cannot be used. */
  fail(ref: string, message: string): void;
  /** Called with what the lists say and this server does not apply. */
  note(ref: string, message: string): void;
}

/** Turns lists and references into the images of a job, each once. */
export class WarmTargets {
  readonly #parts: TargetParts;
  readonly #request: WarmRequest;
  readonly #report: TargetReport;
  readonly #seen = new Set<string>();
  #isFull = false;

  constructor(parts: TargetParts, request: WarmRequest, report: TargetReport) {
    this.#parts = parts;
    this.#request = request;
    this.#report = report;
  }

  /**
   * Reads the lists and the references of the request.
   *
   * @throws the signal's reason
   */
  async read(signal: AbortSignal): Promise<{
    readonly tags: readonly TagsTarget[];
    readonly images: readonly WarmTarget[];
  }> {
    const { lists, refs, faults } = this.#request;
    for (const { origin, message } of faults)
      this.#report.fail(origin, message);
    const tags: TagsTarget[] = [];
    const images: WarmTarget[] = [];
    const pace = new Pace();
    const read = async (entry: ListEntry): Promise<void> => {
      await pace.step();
      signal.throwIfAborted();
      if (entry.kind === "reference") {
        const name =
          entry.origin === "" ? entry.ref : `${entry.origin}: ${entry.ref}`;
        const image = await this.#mirrored(entry.ref, name);
        if (image !== undefined) images.push(...this.#add(image, entry));
        return;
      }
      const name = `${entry.origin}: ${entry.repository}`;
      const image = await this.#mirrored(entry.repository, name);
      if (image !== undefined) tags.push({ key: image.key, entry });
    };
    for (const ref of refs) {
      await read({ kind: "reference", ref, origin: "", platforms: [] });
    }
    for (const list of lists) {
      const parsed = await this.#parts.parseList(list, signal);
      for (const { origin, message } of parsed.faults) {
        this.#report.fail(origin, message);
      }
      for (const { origin, message } of parsed.notes) {
        this.#report.note(origin, message);
      }
      for (const entry of parsed.entries) await read(entry);
    }
    return { tags, images };
  }

  /**
   * Lists the tags of a repository, all pages, and returns the images that the entry selects.
   *
   * @throws Refusal; the signal's reason
   */
  async expand(
    { key, entry }: TagsTarget,
    signal: AbortSignal,
  ): Promise<readonly WarmTarget[]> {
    const { mirror, isOffline } = this.#parts;
    if (!isOffline()) await unlessAborted(mirror.refreshTagList(key), signal);
    const selected: Tag[] = [];
    let isStale = false;
    for (let last: string | undefined; ;) {
      const answer = await unlessAborted(
        mirror.listTags(key, { n: TAGS_PER_PAGE, last }),
        signal,
      );
      isStale ||= answer.isStale;
      for (const text of answer.page.entries) {
        const tag = parseTag(text);
        if (tag === undefined || !entry.selects(tag)) continue;
        selected.push(tag);
      }
      last = answer.page.nextLast;
      if (last === undefined) break;
    }
    const name = `${entry.origin}: ${key.upstream}/${key.repository}`;
    if (isStale) this.#report.fail(name, STALE_LIST);
    else if (selected.length === 0) this.#report.fail(name, NO_TAGS);
    // Only after the last page: what is added by an attempt that fails would be missing in the next.
    return selected.flatMap((tag) =>
      this.#add({ key, reference: { kind: "tag", tag } }, entry),
    );
  }

  /** Returns the target, unless the job has it already or has too many. */
  #add(image: ImageReference, { platforms }: ListEntry): readonly WarmTarget[] {
    const wanted = platforms.length > 0 ? platforms : this.#request.platforms;
    const target = { image, platforms: wanted };
    const name = `${imageText(image)} ${wanted.join(" ")}`;
    if (this.#seen.has(name)) return [];
    if (this.#seen.size >= MAX_WARM_IMAGES) {
      if (!this.#isFull) this.#report.fail(imageText(image), TOO_MANY);
      this.#isFull = true;
      return [];
    }
    this.#seen.add(name);
    return [target];
  }

  /** Returns the image that a text names; reports it and returns undefined if it has no upstream. */
  async #mirrored(
    text: string,
    name: string,
  ): Promise<ImageReference | undefined> {
    const { routes, isUpstream, isHosted } = this.#parts;
    const image = parseImageReference(text, routes);
    if (image === undefined) {
      this.#report.fail(
        name,
        `got ${text}; expected ${REFERENCE_FORMS}${patternHint(text)}`,
      );
      return undefined;
    }
    const { upstream } = image.key;
    if (await isHosted(upstream)) {
      // Lists of what a cluster runs name both kinds; what was pushed here is present.
      if (!(await this.#parts.isStored(image))) this.#report.fail(name, HOSTED);
      return undefined;
    }
    if (!isUpstream(upstream)) {
      this.#report.fail(
        name,
        `got ${upstream}, which is not among the upstreams; expected a configured registry`,
      );
      return undefined;
    }
    return image;
  }
}

const HOSTED =
  "got an image of a registry that is hosted here, and it is not stored; expected a mirrored image, or one that was pushed";
const STALE_LIST =
  "the list of tags is not current, because the upstream does not answer; only tags that are known from earlier were examined";
const NO_TAGS = "got no tag that the entry selects; expected at least one";
const TOO_MANY = `got more than ${MAX_WARM_IMAGES} images; expected fewer: split the lists`;
