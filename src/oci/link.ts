/** Enough for a page's URL with an opaque cursor; a longer text is not treated as a link. */
const MAX_LINK_LENGTH = 16_384;

/**
 * Returns the target of the first `rel="next"` of a `Link` header unchanged: relative, or absolute
 * as Quay and ECR send it. Linear in the length of the header.
 *
 * @returns undefined if there is none, or if it is not valid in a request line
 * @see https://www.rfc-editor.org/rfc/rfc8288#section-3
 */
export function parseNextLink(header: string | undefined): string | undefined {
  if (header === undefined || header.length > MAX_LINK_LENGTH) return undefined;
  let at = 0;
  for (;;) {
    const open = header.indexOf("<", at);
    const close = header.indexOf(">", open);
    if (open === -1 || close === -1) return undefined;
    const { isNext, end } = readParameters(header, close + 1);
    if (isNext) {
      const target = header.slice(open + 1, close);
      return /^[!-~]+$/.test(target) ? target : undefined;
    }
    at = end;
  }
}

/** Returns a `Link` header with the URL of the next page. */
export function formatNextLink(target: string): string {
  return `<${target}>; rel="next"`;
}

/** Returns the parameters of one link, up to the comma before the next link; a quoted comma is text. */
function readParameters(
  header: string,
  start: number,
): { isNext: boolean; end: number } {
  let relation: string | undefined;
  let at = start;
  while (at < header.length && header[at] !== ",") {
    const end = endOfParameter(header, at);
    const parameter = header.slice(at, end);
    const equalsAt = parameter.indexOf("=");
    if (equalsAt !== -1) {
      const name = parameter.slice(0, equalsAt).trim().toLowerCase();
      // RFC 8288 section 3.3: a second rel is ignored.
      if (name === "rel") relation ??= parameter.slice(equalsAt + 1).trim();
    }
    at = header[end] === ";" ? end + 1 : end;
  }
  const relations = (relation ?? "").replaceAll('"', "").toLowerCase();
  return { isNext: relations.split(/[ \t]+/).includes("next"), end: at };
}

/** Returns the index of the next unquoted semicolon or comma, or the end. */
function endOfParameter(header: string, start: number): number {
  let isQuoted = false;
  let at = start;
  for (; at < header.length; at++) {
    const char = header[at];
    if (char === '"') isQuoted = !isQuoted;
    else if (isQuoted && char === "\\") at++;
    else if (!isQuoted && (char === ";" || char === ",")) break;
  }
  return Math.min(at, header.length);
}
