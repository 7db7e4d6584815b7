import { parseSemverConstraint } from "./semver-constraint.ts";
import { type ParsedSelector, parseTagRegex } from "./tag-regex.ts";

/** Which tags of a repository a list selects: data, so that another thread can parse the list. */
export type TagRule =
  | { readonly kind: "every" }
  | {
      /** A pattern of RE2, or a constraint of Masterminds' semver. */
      readonly kind: "pattern" | "constraint";
      readonly text: string;
    };

export const EVERY_TAG: TagRule = { kind: "every" };

const PARSERS = { pattern: parseTagRegex, constraint: parseSemverConstraint };

/** @returns the reason of a fault; undefined if the rule is valid */
export function faultOfRule(rule: TagRule): string | undefined {
  const parsed = parse(rule);
  return parsed.ok ? undefined : parsed.reason;
}

/** Returns the selection of a valid rule. The rule is compiled when it is used first. */
export function tagSelector(rule: TagRule): (tag: string) => boolean {
  let parsed: ParsedSelector | undefined;
  return (tag) => {
    parsed ??= parse(rule);
    return parsed.ok && parsed.selects(tag);
  };
}

function parse(rule: TagRule): ParsedSelector {
  return rule.kind === "every"
    ? { ok: true, selects: () => true }
    : PARSERS[rule.kind](rule.text);
}
