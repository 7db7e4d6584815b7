import type { ListFault, ParsedList, ReferenceEntry } from "./list-entry.ts";
import { type TagRule, tagSelector } from "./tag-rule.ts";

/** A parsed list as data, which another thread can send. */
export interface DraftList extends Pick<ParsedList, "faults" | "notes"> {
  readonly entries: readonly DraftEntry[];
  readonly faults: readonly ListFault[];
  readonly notes: readonly ListFault[];
}

export type DraftEntry = ReferenceEntry | DraftTags;

export interface DraftTags {
  readonly kind: "tags";
  readonly origin: string;
  readonly platforms: readonly string[];
  readonly repository: string;
  readonly rule: TagRule;
}

/** Returns the list with selections that can be called. */
export function completeList({
  entries,
  faults,
  notes,
}: DraftList): ParsedList {
  return {
    entries: entries.map((entry) => {
      if (entry.kind === "reference") return entry;
      const { rule, ...tags } = entry;
      return { ...tags, selects: tagSelector(rule) };
    }),
    faults,
    notes,
  };
}
