import { parseJsonObject } from "../oci/json-object.ts";
import { scanJson } from "../oci/json-scan.ts";
import { parseNextLink } from "../oci/link.ts";
import { OCI_INDEX, parseContentType } from "../oci/media-type.ts";
import { parseTag, type Tag } from "../oci/reference.ts";
import type { Answer } from "../wire/exchange.ts";

/** @see design.md section 5: what there is after so much is the answer */
export const MAX_TAGS_BYTES = 10_485_760;
export const MAX_TAGS_MS = 15_000;

/** Deeper or fuller than any list; beyond it parsing would hold up the whole process. */
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
 * The tags of one page. Nexus sends null for none, Artifactory lists digests among them; whatever
 * is no tag is left out.
 *
 * @returns undefined where it is no list of tags
 */
export function parseTagsPage(bytes: Buffer): readonly Tag[] | undefined {
  const tags = parseFields(bytes)?.get("tags");
  if (tags === null) return [];
  if (!Array.isArray(tags)) return undefined;
  return tags
    .map((tag) => (typeof tag === "string" ? parseTag(tag) : undefined))
    .filter((tag) => tag !== undefined);
}

/**
 * One index out of the pages of a referrers list; a single page stays as it is.
 *
 * @returns undefined where a page is no index
 */
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

/**
 * The next page's URL.
 *
 * @returns undefined at the last page; `foreign` where it is not on the same origin
 */
export function nextPage(answer: Answer): URL | "foreign" | undefined {
  const link = parseNextLink(answer.header("link"));
  if (link === undefined) return undefined;
  if (!URL.canParse(link, answer.url)) return "foreign";
  const next = new URL(link, answer.url);
  next.hash = "";
  return next.origin === answer.url.origin ? next : "foreign";
}

/** A captive portal's page, or a login form: no registry's answer has this type. */
export function isHtml(answer: Answer): boolean {
  const mediaType = parseContentType(answer.header("content-type"));
  return mediaType === "text/html" || mediaType === "application/xhtml+xml";
}
