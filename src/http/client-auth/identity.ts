import type { AccessAction } from "../../config/config.ts";

/** The identity of a client. Anonymous clients are judged by the same rules as users. */
export type Identity =
  | { readonly kind: "anonymous" }
  | { readonly kind: "user"; readonly name: string }
  | {
      readonly kind: "token";
      /** The token's `sub`; empty if it has none. */
      readonly name: string;
      readonly grants: TokenGrants;
    };

/** The rights in a token's `access` claims. */
export interface TokenGrants {
  /** By `upstream/repository`, canonical. */
  readonly repositories: ReadonlyMap<string, ReadonlySet<AccessAction>>;
  /** `registry:catalog:*` */
  readonly catalog: boolean;
}

export const ANONYMOUS: Identity = { kind: "anonymous" };
