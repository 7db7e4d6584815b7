/** Room for a page's URL with an opaque cursor; what is longer is no link. */
const MAX_LINK_LENGTH = 16_384;

/**
 * The target of the first `rel="next"` of a `Link` header, as it stands there: relative, or
 * absolute as Quay and ECR send it. Linear in the length of the header.
 *
 * @returns undefined where there is none, or what there is could not stand in a request line
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

/** A `Link` header that leads to the next page. */
export function formatNextLink(target: string): string {
  return `<${target}>; rel="next"`;
}

/** The parameters of one link, up to the comma before the next one; a comma in quotes is text. */
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
      // A second rel is to be ignored (RFC 8288 section 3.3).
      if (name === "rel") relation ??= parameter.slice(equalsAt + 1).trim();
    }
    at = header[end] === ";" ? end + 1 : end;
  }
  const relations = (relation ?? "").replaceAll('"', "").toLowerCase();
  return { isNext: relations.split(/[ \t]+/).includes("next"), end: at };
}

/** The index of the next semicolon or comma that is not in quotes, or the end. */
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
