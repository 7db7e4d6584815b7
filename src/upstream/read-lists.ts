import type { Digest } from "../oci/digest.ts";
import type { RepositoryName, Tag } from "../oci/reference.ts";
import type { Asker, AskSmall } from "./asker.ts";
import { type UpstreamTags } from "./client.ts";
import { UpstreamError } from "../wire/errors.ts";
import {
  joinReferrers,
  MAX_TAGS_BYTES,
  MAX_TAGS_MS,
  nextPage,
  parseTagsPage,
} from "./lists.ts";
import { PageWalk } from "./page-walk.ts";
import { MAX_MANIFEST_BYTES } from "../oci/manifest.ts";

/** Of a referrers list, all pages together: the index they make has to be one that engines take. */
const MAX_REFERRERS_BYTES = MAX_MANIFEST_BYTES;

/**
 * All pages of a tags list, or as many as the bounds allow.
 *
 * @throws UpstreamError where a page is none, or breaks
 */
export async function readTags(
  asker: Asker,
  ask: AskSmall,
  list: {
    readonly repository: RepositoryName;
    /** Where a list that was cut goes on. */
    readonly after: Tag | undefined;
    /** Ends the whole, where {@link MAX_TAGS_MS} only cut it. */
    readonly signal: AbortSignal;
  },
): Promise<UpstreamTags> {
  const { repository, after, signal } = list;
  const deadline = AbortSignal.timeout(MAX_TAGS_MS);
  const tags = new Set<Tag>();
  const query = after === undefined ? "" : `?last=${after}`;
  const pages = new PageWalk(`tags/list${query}`);
  let bytesLeft = MAX_TAGS_BYTES;
  for (;;) {
    try {
      const held = await ask(
        { method: "GET", repository, target: pages.next },
        deadline,
      );
      const page = await asker.read(held, bytesLeft);
      bytesLeft -= page.length;
      const found = parseTagsPage(page);
      if (found === undefined) throw asker.badAnswer(held, "no list of tags");
      for (const tag of found) tags.add(tag);
      pages.advance(nextPage(held.answer));
    } catch (error) {
      const isCut =
        !signal.aborted &&
        pages.count > 0 &&
        error instanceof UpstreamError &&
        (deadline.aborted || error.kind === "too-large");
      if (!isCut) throw error;
      return { tags: [...tags], isWhole: false };
    }
    if (pages.isAtEnd) return { tags: [...tags], isWhole: pages.isWhole };
  }
}

/**
 * The referrers API's image index with all pages joined.
 *
 * @throws UpstreamError also where the list has no end: half of it would look like all
 */
export async function readReferrers(
  asker: Asker,
  ask: AskSmall,
  list: { readonly repository: RepositoryName; readonly subject: Digest },
): Promise<Buffer> {
  const { repository, subject } = list;
  const pages = new PageWalk(`referrers/${subject}`);
  const bodies: Buffer[] = [];
  let bytesLeft = MAX_REFERRERS_BYTES;
  for (;;) {
    const held = await ask({ method: "GET", repository, target: pages.next });
    const body = await asker.read(held, bytesLeft);
    bytesLeft -= body.length;
    bodies.push(body);
    pages.advance(nextPage(held.answer));
    if (!pages.isAtEnd) continue;
    // A signature that was cut off would look like one that is not there.
    if (!pages.isWhole) {
      throw asker.badAnswer(held, "referrers without an end");
    }
    const index = joinReferrers(bodies);
    if (index === undefined) throw asker.badAnswer(held, "no image index");
    return index;
  }
}
