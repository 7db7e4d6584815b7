/**
 * Whether an `If-None-Match` names the representation, by weak comparison.
 *
 * @param etag of the representation, in quotes
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
 */
export function matchesIfNoneMatch(
  header: string | undefined,
  etag: string,
): boolean {
  if (header === undefined) return false;
  if (header.trim() === "*") return true;
  return header
    .split(",")
    .some((candidate) => candidate.trim().replace(/^W\//, "") === etag);
}

/**
 * Whether a `Range` applies with this `If-Range`. A date never matches: no response has `Last-Modified`.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
 */
export function allowsRange(
  ifRange: string | undefined,
  etag: string,
): boolean {
  return ifRange === undefined || ifRange.trim() === etag;
}
