import type { ListFormat } from "../../src/images/lists/list-entry.ts";
import { parseList } from "../../src/images/lists/parse-list.ts";

/** A parsed list as a test states it. */
export interface ListOutline {
  /**
   * `LINE REFERENCE`, without `docker.io/` and with the platforms after it, or `LINE REPOSITORY: TAGS` with those of the tags on
   * offer that are selected.
   */
  readonly entries: readonly string[];
  /** `LINE MESSAGE` */
  readonly faults: readonly string[];
  /** `LINE MESSAGE` */
  readonly notes: readonly string[];
}

/** Parses a list named `list`. @param tags on offer in every repository */
export function outlineList(
  text: string,
  { format, tags = [] }: { format?: ListFormat; tags?: readonly string[] } = {},
): ListOutline {
  const parsed = parseList({ name: "list", text, format });
  return {
    entries: parsed.entries.map((entry) =>
      entry.kind === "reference"
        ? [
            lineOf(entry.origin),
            entry.ref.replace(/^docker\.io\//, ""),
            ...entry.platforms,
          ].join(" ")
        : `${lineOf(entry.origin)} ${entry.repository}: ${tags.filter(entry.selects).join(" ")}`,
    ),
    faults: parsed.faults.map((fault) => statement(fault)),
    notes: parsed.notes.map((note) => statement(note)),
  };
}

function statement(fault: { origin: string; message: string }): string {
  return `${lineOf(fault.origin)} ${fault.message}`;
}

function lineOf(origin: string): string {
  return origin.slice("list:".length);
}
