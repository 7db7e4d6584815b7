import type { DistributionTarget } from "../../oci/path.ts";

/**
 * The right that each route needs. A route without a line here does not compile.
 *
 * - `enter`: the response contains nothing of a repository
 * - `catalog`: the response lists only repositories that the client may pull
 * - `pull`: the response contains content of the repository
 */
export const ROUTE_RIGHTS = {
  ping: "enter",
  catalog: "catalog",
  manifest: "pull",
  blob: "pull",
  tags: "pull",
  referrers: "pull",
  // The response is 405: a mirror accepts no push.
  upload: "enter",
} as const satisfies Record<
  DistributionTarget["kind"],
  "enter" | "catalog" | "pull"
>;
