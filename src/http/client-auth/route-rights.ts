import type { DistributionTarget } from "../../oci/path.ts";

/**
 * What each route needs of whoever asks: the one table of them. A route without a line here does
 * not compile.
 *
 * - `enter`: nothing of a repository is told
 * - `catalog`: only names that may be pulled from are told
 * - `pull`: everything of the repository, whatever the cache holds or fetches
 */
export const ROUTE_RIGHTS = {
  ping: "enter",
  catalog: "catalog",
  manifest: "pull",
  blob: "pull",
  tags: "pull",
  referrers: "pull",
  // Answered 405 to whoever may enter: a mirror takes no push.
  upload: "enter",
} as const satisfies Record<
  DistributionTarget["kind"],
  "enter" | "catalog" | "pull"
>;
