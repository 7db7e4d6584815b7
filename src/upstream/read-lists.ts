import type { Digest } from "../oci/digest.ts";
import type { RepositoryName, Tag } from "../oci/reference.ts";
import type { Asker, SendSmall } from "./asker.ts";
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

/** Bound of all pages of a referrers list: engines must accept the joined index. */
const MAX_REFERRERS_BYTES = MAX_MANIFEST_BYTES;

/**
 * Reads all pages of a tags list, or as many as the bounds allow.
 *
 * @throws UpstreamError if a page is invalid or its body breaks
 */
export async function readTags(
  asker: Asker,
  send: SendSmall,
  list: {
    readonly repository: RepositoryName;
    /** The last tag of a list that was cut, to continue after it. */
    readonly after: Tag | undefined;
    /** Ends the request; {@link MAX_TAGS_MS} only cuts the list. */
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
      const held = await send(
        { method: "GET", repository, target: pages.next },
        deadline,
      );
      const page = await asker.read(held, bytesLeft);
      bytesLeft -= page.length;
      const found = parseTagsPage(page);
      if (found === undefined)
        throw asker.badAnswer(held, "got a page that is not a list of tags");
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
 * Reads the image index of the referrers API with all pages joined.
 *
 * @throws UpstreamError also if the list exceeds a bound: a part of it would look like all of it
 */
export async function readReferrers(
  asker: Asker,
  send: SendSmall,
  list: { readonly repository: RepositoryName; readonly subject: Digest },
): Promise<Buffer> {
  const { repository, subject } = list;
  const pages = new PageWalk(`referrers/${subject}`);
  const bodies: Buffer[] = [];
  let bytesLeft = MAX_REFERRERS_BYTES;
  for (;;) {
    const held = await send({ method: "GET", repository, target: pages.next });
    const body = await asker.read(held, bytesLeft);
    bytesLeft -= body.length;
    bodies.push(body);
    pages.advance(nextPage(held.answer));
    if (!pages.isAtEnd) continue;
    // A signature that was cut off would look like a missing one.
    if (!pages.isWhole) {
      throw asker.badAnswer(held, "got too many pages of referrers");
    }
    const index = joinReferrers(bodies);
    if (index === undefined)
      throw asker.badAnswer(held, "got a page that is not an image index");
    return index;
  }
}
