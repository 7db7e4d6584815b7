import type { AccessAction, AccessRule } from "../../config/config.ts";
import { compilePattern } from "../../oci/glob.ts";
import type { Identity } from "./identity.ts";

/** The right that a request needs. */
export type Right =
  /** To use the mirror, identified or anonymously. */
  | { readonly kind: "enter" }
  /** To list repositories. */
  | { readonly kind: "catalog" }
  /** To see one repository in the list, as canonical `upstream/repository`. */
  | { readonly kind: "catalog-entry"; readonly name: string }
  | {
      readonly kind: "repository";
      readonly action: AccessAction;
      /** Canonical: `upstream/repository`. */
      readonly name: string;
    };

/** Whether an identity has a right. Pure. */
export type Policy = (identity: Identity, right: Right) => boolean;

/**
 * Compiles rules. Without rules, every admitted client may pull everything. With rules, only what a
 * rule allows is allowed. A token may do what both its claims and the rules allow.
 */
export function createPolicy(rules: readonly AccessRule[]): Policy {
  const compiled = rules.map(({ who, repositories, actions }) => {
    const matchers = repositories.map(compilePattern);
    const users = new Set(who);
    return {
      isFor: (identity: Identity): boolean =>
        users.has("*") ||
        (identity.kind !== "anonymous" && users.has(identity.name)),
      actions: new Set<AccessAction>(actions),
      covers: (name: string): boolean =>
        matchers.some((matches) => matches(name, undefined)),
    };
  });
  const allowsRepository = (
    identity: Identity,
    action: AccessAction,
    name: string,
  ): boolean =>
    compiled.length === 0
      ? action === "pull"
      : compiled.some(
          (rule) =>
            rule.actions.has(action) &&
            rule.isFor(identity) &&
            rule.covers(name),
        );

  return (identity, right) => {
    switch (right.kind) {
      case "enter":
        return true;
      case "catalog":
        return maySeeNames(identity);
      case "catalog-entry":
        return (
          maySeeNames(identity) &&
          allowsRepository(identity, "pull", right.name)
        );
      case "repository":
        return (
          isGranted(identity, right.action, right.name) &&
          allowsRepository(identity, right.action, right.name)
        );
      default:
        return right satisfies never;
    }
  };
}

function maySeeNames(identity: Identity): boolean {
  return identity.kind !== "token" || identity.grants.catalog;
}

function isGranted(
  identity: Identity,
  action: AccessAction,
  name: string,
): boolean {
  return (
    identity.kind !== "token" ||
    identity.grants.repositories.get(name)?.has(action) === true
  );
}
