import { type Digest, parseDigest } from "../../../oci/digest.ts";
import { isMediaType } from "../../../oci/media-type.ts";
import {
  parseReference,
  parseRepositoryName,
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../../../oci/reference.ts";

/*
 * The lines of roots.jsonl. The last line of a reference is valid; a line without a digest removes it:
 *
 * {"ref":"docker.io/library/alpine:3.20","digest":"sha256:…","mediaType":"application/…","time":"2026-10-07T12:30:05.000Z"}
 *
 * A pinned root has `"pinned":true`, without a digest if its manifest was lost. A digest that was
 * requested directly, that a tag pointed to before, or that is pinned has its own line,
 * `"ref":"docker.io/library/alpine@sha256:…"`. An old line may remain for a digest that a tag or an
 * index names; it is then a root only if nothing else names it.
 *
 * Lines of hosted repositories have `"hosted":true`. Each of their manifests has its own line, tagged
 * or not, and so has each tag. They are synced before the row is committed, so that the last hosted
 * line of a name is never older than its row. A line without the member never replaces a hosted one.
 *
 * A blob that was deleted from a hosted repository while a manifest there named it has the line
 * `{"ref":"local/app@sha256:…","digest":null,"blob":"unlinked","hosted":true,…}`, with `"linked"` once
 * the blob is pushed or mounted again, or the manifest is deleted. It is a name of its own, also if a
 * manifest has the same digest.
 *
 * A file that was rewritten starts with `{"complete":"2026-10-07T12:30:05.000Z"}`: it has a line for
 * every hosted name that existed then.
 *
 * Older versions ignore members that they do not know, and lines that they can't parse.
 */

/** A tag with its digest, or a digest that is a root. */
export interface JournalRoot {
  readonly key: RepositoryKey;
  readonly reference: Reference;
  /** Undefined if the root was removed or, with a pin, if its manifest was lost. */
  readonly digest: Digest | undefined;
  readonly mediaType: string | undefined;
  readonly isPinned: boolean;
  /** A tag or a manifest of a hosted repository. */
  readonly isHosted?: boolean;
  /** Of a blob: whether it was deleted while a manifest of the hosted repository named it. */
  readonly blob?: "unlinked" | "linked";
  readonly atMs: number;
}

/** Longer lines were not written by this program. */
export const MAX_LINE_LENGTH = 4_096;

/** What a line is about. */
export type JournalName = Pick<JournalRoot, "key" | "reference" | "blob">;

/** Returns the text that identifies the root, as in `docker.io/library/alpine:3.20`. */
export function rootName(name: JournalName): string {
  return name.blob === undefined ? refOf(name) : `blob ${refOf(name)}`;
}

function refOf({ key, reference }: JournalName): string {
  const separator = reference.kind === "tag" ? ":" : "@";
  return `${key.upstream}/${key.repository}${separator}${referenceText(reference)}`;
}

export function lineOf(root: JournalRoot): string {
  const { digest, mediaType, isPinned, isHosted, blob, atMs } = root;
  return `${JSON.stringify({
    ref: refOf(root),
    digest: digest ?? null,
    ...(digest === undefined ? {} : { mediaType }),
    ...(isPinned ? { pinned: true } : {}),
    ...(isHosted === true ? { hosted: true } : {}),
    ...(blob === undefined ? {} : { blob }),
    time: new Date(atMs).toISOString(),
  })}\n`;
}

/** Returns the first line of a file that has a line for every hosted name. */
export function completeLine(atMs: number): string {
  return `${JSON.stringify({ complete: new Date(atMs).toISOString() })}\n`;
}

/** Returns the time of a {@link completeLine}; undefined for any other line. */
export function parseCompleteLine(line: string): number | undefined {
  if (!line.startsWith('{"complete":')) return undefined;
  const { complete } = parseObject(line) ?? {};
  const atMs = typeof complete === "string" ? Date.parse(complete) : Number.NaN;
  return Number.isNaN(atMs) ? undefined : atMs;
}

/** Returns whether the line may be of a hosted repository; cheaper than parsing it. */
export function mayBeHosted(line: string): boolean {
  return line.includes('"hosted":true');
}

export function parseLine(line: string): JournalRoot | undefined {
  const value = parseObject(line);
  if (value === undefined) return undefined;
  const { ref, digest, mediaType, pinned, hosted, blob, time } = value;
  if (typeof ref !== "string" || typeof time !== "string") return undefined;
  const named = parseRoot(ref);
  const atMs = Date.parse(time);
  if (named === undefined || Number.isNaN(atMs)) return undefined;
  const common = {
    ...named,
    isPinned: pinned === true,
    ...(hosted === true ? { isHosted: true } : {}),
    atMs,
  };
  if (digest === null) {
    const isBlob = blob === "unlinked" || blob === "linked";
    return {
      ...common,
      ...(isBlob ? { blob } : {}),
      digest: undefined,
      mediaType: undefined,
    };
  }
  const parsed = typeof digest === "string" ? parseDigest(digest) : undefined;
  if (
    parsed === undefined ||
    typeof mediaType !== "string" ||
    !isMediaType(mediaType)
  ) {
    return undefined;
  }
  return { ...common, digest: parsed, mediaType };
}

function parseObject(
  line: string,
): Readonly<Record<string, unknown>> | undefined {
  if (line.length > MAX_LINE_LENGTH || !line.startsWith("{")) return undefined;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function parseRoot(
  text: string,
): Pick<JournalRoot, "key" | "reference"> | undefined {
  const slash = text.indexOf("/");
  const at = text.indexOf("@");
  const end = at === -1 ? text.lastIndexOf(":") : at;
  const repository = parseRepositoryName(text.slice(slash + 1, end));
  const reference = parseReference(text.slice(end + 1));
  const isKind = reference?.kind === (at === -1 ? "tag" : "digest");
  if (slash < 1 || repository === undefined || !isKind) return undefined;
  return { key: { upstream: text.slice(0, slash), repository }, reference };
}
