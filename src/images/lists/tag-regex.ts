import { RE2JS } from "re2js";

/** Compiled patterns grow with their length. */
const MAX_PATTERN_LENGTH = 4_096;

/** A compiled pattern, or why it is not one. */
export type ParsedSelector =
  | { readonly ok: true; readonly selects: (tag: string) => boolean }
  | { readonly ok: false; readonly reason: string };

/**
 * Parses a pattern of Go's `regexp` package (RE2). It selects a text if it matches anywhere in it.
 *
 * JavaScript's own expressions differ: `\z`, `(?i)`, `[[:alpha:]]` and `\pL` mean something else there
 * or nothing, `(?=x)` and `\1` are not allowed here, and one match can take exponential time.
 *
 * @see https://github.com/google/re2/wiki/Syntax
 */
export function parseTagRegex(pattern: string): ParsedSelector {
  if (pattern.length > MAX_PATTERN_LENGTH) {
    return {
      ok: false,
      reason: `got a pattern of ${pattern.length} characters; expected at most ${MAX_PATTERN_LENGTH}`,
    };
  }
  try {
    const compiled = RE2JS.compile(pattern);
    return { ok: true, selects: (tag) => compiled.test(tag) };
  } catch (error) {
    const detail = error instanceof Error ? error.message : "invalid";
    return {
      ok: false,
      reason: `got a pattern with an error (${detail.replace("error parsing regexp: ", "")}); expected the syntax of RE2`,
    };
  }
}
