import type { Findings } from "./findings.ts";

/**
 * Reads one reference a line. Blank lines are skipped, and what follows a `#` at the beginning of a
 * line or after a space.
 */
export function readPlainList(text: string, findings: Findings): void {
  for (const [index, line] of text.split(/\r\n|[\n\r]/).entries()) {
    const reference = line.replace(/(?:^|\s)#.*$/, "").trim();
    if (reference !== "") findings.addReference(reference, index + 1);
  }
}
