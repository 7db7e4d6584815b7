import { parseJsonObject } from "../oci/json-object.ts";
import { scanJson } from "../oci/json-scan.ts";
import { parseNextLink } from "../oci/link.ts";
import { OCI_INDEX, parseContentType } from "../oci/media-type.ts";
import { parseTag, type Tag } from "../oci/reference.ts";
import type { Answer } from "../wire/exchange.ts";

/** A list is cut after this many bytes or this time; the part before is the answer (design.md, section 5). */
export const MAX_TAGS_BYTES = 10_485_760;
export const MAX_TAGS_MS = 15_000;

/** Beyond the depth and size of any list; parsing larger ones would block the process. */
const BOUNDS = {
  maxDepth: 32,
  maxMarks: 3_000_000,
  maxMembers: 100_000,
  maxKeyBytes: 64,
};

function parseFields(bytes: Buffer): ReadonlyMap<string, unknown> | undefined {
  return scanJson(bytes, BOUNDS) === undefined
    ? undefined
    : parseJsonObject(bytes.toString("utf8"));
}

/**
 * Parses the tags of one page; undefined if it is not a list of tags. Nexus sends null for none,
 * Artifactory lists digests among the tags; invalid tags are left out.
 */
export function parseTagsPage(bytes: Buffer): readonly Tag[] | undefined {
  const tags = parseFields(bytes)?.get("tags");
  if (tags === null) return [];
  if (!Array.isArray(tags)) return undefined;
  return tags
    .map((tag) => (typeof tag === "string" ? parseTag(tag) : undefined))
    .filter((tag) => tag !== undefined);
}

/** Joins the pages of a referrers list to one index; undefined if a page is not an index. */
export function joinReferrers(pages: readonly Buffer[]): Buffer | undefined {
  const all: unknown[] = [];
  for (const page of pages) {
    const manifests = parseFields(page)?.get("manifests");
    if (!Array.isArray(manifests)) return undefined;
    for (const manifest of manifests) all.push(manifest);
  }
  const [only] = pages;
  if (only !== undefined && pages.length === 1) return only;
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: all,
    }),
  );
}

/** Returns the URL of the next page; undefined after the last page, `foreign` for another origin. */
export function nextPage(answer: Answer): URL | "foreign" | undefined {
  const link = parseNextLink(answer.header("link"));
  if (link === undefined) return undefined;
  if (!URL.canParse(link, answer.url)) return "foreign";
  const next = new URL(link, answer.url);
  next.hash = "";
  return next.origin === answer.url.origin ? next : "foreign";
}

/** True for HTML, as sent by captive portals and login forms; no registry answers with it. */
export function isHtml(answer: Answer): boolean {
  const mediaType = parseContentType(answer.header("content-type"));
  return mediaType === "text/html" || mediaType === "application/xhtml+xml";
}
