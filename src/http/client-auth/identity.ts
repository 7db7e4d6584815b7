import type { AccessAction } from "../../config/config.ts";

/** Who asks. Anonymous clients are judged by the same rules as everybody else. */
export type Identity =
  | { readonly kind: "anonymous" }
  | { readonly kind: "user"; readonly name: string }
  | {
      readonly kind: "token";
      /** The token's `sub`; empty where it has none. */
      readonly name: string;
      readonly grants: TokenGrants;
    };

/** What a token's `access` claims allow. */
export interface TokenGrants {
  /** By `upstream/repository`, canonical. */
  readonly repositories: ReadonlyMap<string, ReadonlySet<AccessAction>>;
  /** `registry:catalog:*` */
  readonly catalog: boolean;
}

export const ANONYMOUS: Identity = { kind: "anonymous" };
