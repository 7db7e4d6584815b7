/** Enough for registry.k8s.io to a regional registry to its storage, with some to spare. */
export const MAX_REDIRECTS = 5;

/**
 * 303 is among them: GET and HEAD stay what they are. 300 and 304 are not: nothing was asked that
 * they would answer.
 */
const REDIRECT_STATUSES: ReadonlySet<number> = new Set([
  301, 302, 303, 307, 308,
]);

export function isRedirect(status: number): boolean {
  return REDIRECT_STATUSES.has(status);
}

export type RedirectVerdict =
  | { readonly target: URL }
  /** Why not; holds no query, which may be a signature. */
  | { readonly refusal: string };

/**
 * Where a redirect leads, and whether it may be followed.
 *
 * @param location the `Location` as it came; relative to `from`
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-10.2.2
 */
export function judgeRedirect(
  from: URL,
  location: string | undefined,
): RedirectVerdict {
  if (location === undefined || location === "") {
    return { refusal: "a redirect without Location" };
  }
  if (!URL.canParse(location, from)) {
    return { refusal: "a redirect whose Location is no URL" };
  }
  const target = new URL(location, from);
  target.hash = "";
  const refusal = refuseTarget(target, from);
  return refusal === undefined ? { target } : { refusal };
}

/** The one place that says which URLs are never asked, wherever a redirect comes from. */
function refuseTarget(target: URL, from: URL): string | undefined {
  if (target.protocol !== "https:" && target.protocol !== "http:") {
    return `a redirect to ${target.protocol}`;
  }
  if (from.protocol === "https:" && target.protocol !== "https:") {
    return `a redirect from https to http on ${target.host}`;
  }
  if (target.username !== "" || target.password !== "") {
    return `a redirect to ${target.host} with credentials in it`;
  }
  return undefined;
}
