/**
 * Formats a Markdown table. Prettier is switched off for it, because it would pad every row to the
 * longest one.
 */
export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  return [
    "<!-- prettier-ignore -->",
    row(head),
    row(head.map(() => "---")),
    ...rows.map(row),
  ].join("\n");
}

export function code(text: string): string {
  return `\`${text}\``;
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}
