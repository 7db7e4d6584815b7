/**
 * Whether an `If-None-Match` names the representation, by weak comparison.
 *
 * @param etag ours, in quotes
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
 * Whether a `Range` beside this `If-Range` counts. A date never matches: nothing here has one.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
 */
export function allowsRange(
  ifRange: string | undefined,
  etag: string,
): boolean {
  return ifRange === undefined || ifRange.trim() === etag;
}
