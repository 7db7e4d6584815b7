import type { DraftEntry, DraftList } from "./draft-list.ts";
import type { ListFault } from "./list-entry.ts";
import { PLATFORM_FORM, readListPlatform } from "./list-platform.ts";
import {
  patternHint,
  readListReference,
  REFERENCE_FORM,
  withRegistry,
} from "./list-reference.ts";
import { faultOfRule, type TagRule } from "./tag-rule.ts";

/** Far above any real list; what a small YAML file with aliases can reach. */
const MAX_ENTRIES = 100_000;
/** A list of another kind has a fault on every line. */
const MAX_FAULTS = 1_000;
/** A text of a list in a message; longer ones are cut. */
const MAX_QUOTED_LENGTH = 200;

/** Collects what a grammar finds in a list, within limits. */
export class Findings {
  readonly #name: string;
  readonly #entries: DraftEntry[] = [];
  readonly #faults: ListFault[] = [];
  readonly #notes: ListFault[] = [];

  /** @param name of the list, as messages have it */
  constructor(name: string) {
    this.#name = name;
  }

  /**
   * Adds one image that a tool names, or the fault of its reference. A name without a registry is Docker
   * Hub's, as it is to engines, whatever the default registry of this mirror is.
   *
   * @param text as the list has it
   */
  addImage(
    text: string,
    line: number,
    platforms: readonly string[] = [],
  ): void {
    const ref = readListReference(text);
    this.addReference(
      ref === undefined ? text : withRegistry(ref),
      line,
      platforms,
    );
  }

  /** Adds one image as operators write it, or the fault of its reference. */
  addReference(
    text: string,
    line: number,
    platforms: readonly string[] = [],
  ): void {
    const ref = readListReference(text);
    if (ref === undefined) {
      this.fault(
        line,
        `got ${quote(text)}; expected ${REFERENCE_FORM}${patternHint(text)}`,
      );
      return;
    }
    const chosen = new Set<string>();
    for (const platform of platforms) {
      const read = readListPlatform(platform);
      if (read === undefined) {
        this.fault(
          line,
          `got the platform ${quote(platform)} of ${ref}; expected ${PLATFORM_FORM}`,
        );
        return;
      }
      chosen.add(read);
    }
    this.#add({
      kind: "reference",
      origin: this.#originOf(line),
      platforms: [...chosen],
      ref,
    });
  }

  /** Adds the tags of a repository that a rule selects, or the fault of the rule. */
  addTags(repository: string, line: number, rule: TagRule): void {
    const reason = faultOfRule(rule);
    if (reason !== undefined) {
      this.fault(line, `${quote(repository)}: ${reason}`);
      return;
    }
    const origin = this.#originOf(line);
    this.#add({ kind: "tags", origin, platforms: [], repository, rule });
  }

  fault(line: number, message: string): void {
    if (this.#faults.length < MAX_FAULTS) {
      this.#faults.push({ origin: this.#originOf(line), message });
    }
  }

  note(line: number, message: string): void {
    if (this.#notes.length < MAX_FAULTS) {
      this.#notes.push({ origin: this.#originOf(line), message });
    }
  }

  draft(): DraftList {
    if (this.#entries.length === 0 && this.#faults.length === 0) {
      this.note(1, "the list names no image");
    }
    return { entries: this.#entries, faults: this.#faults, notes: this.#notes };
  }

  #add(entry: DraftEntry): void {
    if (this.#entries.length < MAX_ENTRIES) {
      this.#entries.push(entry);
      return;
    }
    const message = `got more than ${MAX_ENTRIES} images; expected several lists`;
    if (this.#faults.at(-1)?.message !== message) {
      this.#faults.push({ origin: entry.origin, message });
    }
  }

  #originOf(line: number): string {
    return `${this.#name}:${line}`;
  }
}

/** Returns a text of a list in quotes, on one line and without control characters. */
export function quote(text: string): string {
  return JSON.stringify(
    text.length > MAX_QUOTED_LENGTH
      ? `${text.slice(0, MAX_QUOTED_LENGTH)}…`
      : text,
  );
}
