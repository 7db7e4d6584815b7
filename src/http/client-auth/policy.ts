import type { AccessAction, AccessRule } from "../../config/config.ts";
import { compilePattern } from "../../oci/glob.ts";
import type { Identity } from "./identity.ts";

/** The right that a request needs. */
export type Right =
  /** To use the server, identified or anonymously. */
  | { readonly kind: "enter" }
  /** To list repositories. */
  | { readonly kind: "catalog" }
  /** To see one repository in the list, as canonical `registry/repository`. */
  | { readonly kind: "catalog-entry"; readonly name: string }
  | RepositoryRight;

export interface RepositoryRight {
  readonly kind: "repository";
  readonly action: AccessAction;
  /** Canonical: `registry/repository`. */
  readonly name: string;
  /** Whether the repository is hosted here, not mirrored. */
  readonly isHosted: boolean;
}

/** Whether an identity has a right. Pure. */
export type Policy = (identity: Identity, right: Right) => boolean;

/**
 * Compiles rules. Without rules, every admitted client may pull everything, and a user may also push
 * to and delete from hosted repositories. With rules, only what a rule allows is allowed; the right
 * to push includes the right to pull. A token may do what both its claims and the rules allow;
 * without rules its claims decide. An anonymous client only pulls, whatever the rules say.
 */
export function createPolicy(rules: readonly AccessRule[]): Policy {
  const compiled = rules.map(({ who, repositories, actions }) => {
    const matchers = repositories.map(compilePattern);
    const users = new Set(who);
    return {
      isFor: (identity: Identity): boolean =>
        users.has("*") ||
        (identity.kind !== "anonymous" && users.has(identity.name)),
      actions: withPull(actions),
      covers: (name: string): boolean =>
        matchers.some((matches) => matches(name, undefined)),
    };
  });
  const isRuledFor = (
    identity: Identity,
    action: AccessAction,
    name: string,
  ): boolean =>
    compiled.some(
      (rule) =>
        rule.actions.has(action) && rule.isFor(identity) && rule.covers(name),
    );
  const allowsRepository = (
    identity: Identity,
    { action, name, isHosted }: RepositoryRight,
  ): boolean => {
    if (identity.kind === "anonymous" && action !== "pull") return false;
    if (compiled.length > 0) return isRuledFor(identity, action, name);
    return action === "pull" || isHosted || identity.kind === "token";
  };

  return (identity, right) => {
    switch (right.kind) {
      case "enter":
        return true;
      case "catalog":
        return maySeeNames(identity);
      case "catalog-entry":
        return (
          maySeeNames(identity) &&
          (compiled.length === 0 || isRuledFor(identity, "pull", right.name))
        );
      case "repository":
        return (
          isGranted(identity, right.action, right.name) &&
          allowsRepository(identity, right)
        );
      default:
        return right satisfies never;
    }
  };
}

function withPull(actions: readonly AccessAction[]): Set<AccessAction> {
  const all = new Set(actions);
  return all.has("push") ? all.add("pull") : all;
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
