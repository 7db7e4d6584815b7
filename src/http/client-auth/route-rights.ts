import type { AccessAction } from "../../config/config.ts";
import type { DistributionTarget } from "../../oci/path.ts";

/** Methods with the same meaning; `other`: every method that the API does not have. */
export type MethodClass = "read" | "write" | "delete" | "other";

/**
 * - `enter`: the response contains nothing of a repository
 * - `catalog`: the response lists only repositories that the client may pull
 */
export type RouteRight = "enter" | "catalog" | AccessAction;

/** A method that the API does not have needs the right to push: a later version may define it. */
const CONTENT = {
  read: "pull",
  write: "push",
  delete: "delete",
  other: "push",
} as const;

/** The right that each method needs on each route. A pair without an entry does not compile. */
export const ROUTE_RIGHTS = {
  ping: { read: "enter", write: "enter", delete: "enter", other: "enter" },
  catalog: {
    read: "catalog",
    write: "catalog",
    delete: "catalog",
    other: "catalog",
  },
  manifest: CONTENT,
  blob: CONTENT,
  tags: CONTENT,
  referrers: CONTENT,
  // The state of an upload, and its end, belong to the client that pushes.
  upload: { read: "push", write: "push", delete: "push", other: "push" },
} as const satisfies Record<
  DistributionTarget["kind"],
  Readonly<Record<MethodClass, RouteRight>>
>;

export function methodClass(method: string | undefined): MethodClass {
  return (method === undefined ? undefined : CLASSES.get(method)) ?? "other";
}

const CLASSES: ReadonlyMap<string, MethodClass> = new Map([
  ["GET", "read"],
  ["HEAD", "read"],
  ["POST", "write"],
  ["PUT", "write"],
  ["PATCH", "write"],
  ["DELETE", "delete"],
]);
