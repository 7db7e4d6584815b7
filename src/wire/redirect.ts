/** More than the longest known chain: registry.k8s.io, a regional registry, its storage. */
export const MAX_REDIRECTS = 5;

/** Includes 303, which keeps GET and HEAD; without 300 and 304, which answer requests that are never sent. */
const REDIRECT_STATUSES: ReadonlySet<number> = new Set([
  301, 302, 303, 307, 308,
]);

export function isRedirect(status: number): boolean {
  return REDIRECT_STATUSES.has(status);
}

export type RedirectVerdict =
  | { readonly target: URL }
  /** The reason; without the query, which may hold a signature. */
  | { readonly refusal: string };

/**
 * Returns the target of a redirect, or the reason why it is not followed.
 *
 * @param location the `Location` header as received; relative to `from`
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-10.2.2
 */
export function judgeRedirect(
  from: URL,
  location: string | undefined,
): RedirectVerdict {
  if (location === undefined || location === "") {
    return { refusal: "got a redirect without Location" };
  }
  if (!URL.canParse(location, from)) {
    return { refusal: "got a redirect whose Location is not a URL" };
  }
  const target = new URL(location, from);
  target.hash = "";
  const refusal = refuseTarget(target, from);
  return refusal === undefined ? { target } : { refusal };
}

/** Returns the reason if no redirect may lead to the target. */
function refuseTarget(target: URL, from: URL): string | undefined {
  if (target.protocol !== "https:" && target.protocol !== "http:") {
    return `got a redirect to ${target.protocol}; expected http or https`;
  }
  if (from.protocol === "https:" && target.protocol !== "https:") {
    return `got a redirect from https to http on ${target.host}`;
  }
  if (target.username !== "" || target.password !== "") {
    return `got a redirect to ${target.host} with credentials in the URL`;
  }
  return undefined;
}
