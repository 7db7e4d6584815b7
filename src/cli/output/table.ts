import {
  type OutputStyle,
  paint,
  type Paint,
  printable,
} from "./output-style.ts";

/** A column of a table. */
export interface Column {
  readonly heading: string;
  /** Default: left. */
  readonly align?: "right";
  /**
   * The part of a cell that gives way if the table is wider than the terminal. Absent: the cells stay
   * whole.
   */
  readonly cut?: "middle" | "end";
}

/** A cell; painted on a terminal that shows colours. */
export type Cell =
  string | { readonly text: string; readonly colour: Paint | undefined };

const GAP = "  ";
const ELLIPSIS = "…";
/** Narrower cells would not be recognised. */
const MIN_CUT_WIDTH = 16;

/** Formats a table with headings. On a terminal, cells are cut so that a row fits one line. */
export function tableText(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  style: OutputStyle,
): string {
  const heading = columns.map(({ heading: text }): Cell => ({
    text,
    colour: "bold",
  }));
  return linesOf(columns, [heading, ...rows], style);
}

/** Formats names with their values, one pair a line. */
export function fieldsText(
  fields: readonly (readonly [string, Cell])[],
  style: OutputStyle,
): string {
  const rows = fields.map(([name, value]): readonly Cell[] => [
    { text: name, colour: "bold" },
    value,
  ]);
  return linesOf([{ heading: "" }, { heading: "" }], rows, style);
}

function linesOf(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  style: OutputStyle,
): string {
  const shown = rows.map((row) =>
    columns.map((_, at) => {
      const cell = row[at] ?? "";
      return typeof cell === "string"
        ? { text: printable(cell), colour: undefined }
        : { ...cell, text: printable(cell.text) };
    }),
  );
  const widths = fittingWidths(columns, shown, style.width);
  return shown
    .map((row) => {
      const last = row.findLastIndex(({ text }) => text !== "");
      const cells = row.slice(0, last + 1).map(({ text, colour }, at) => {
        const { align, cut = "end" } = columns[at] ?? {};
        const width = widths[at] ?? 0;
        const visible = cutText(text, width, cut);
        const painted =
          colour === undefined ? visible : paint(style, colour, visible);
        const padding = " ".repeat(width - visible.length);
        if (align === "right") return padding + painted;
        return at === last ? painted : painted + padding;
      });
      return `${cells.join(GAP)}\n`;
    })
    .join("");
}

/** Returns the width of each column, reduced from the widest on until a row fits. */
function fittingWidths(
  columns: readonly Column[],
  rows: readonly (readonly { readonly text: string }[])[],
  width: number | undefined,
): number[] {
  const widths = columns.map((_, at) =>
    rows.reduce((most, row) => Math.max(most, row[at]?.text.length ?? 0), 0),
  );
  if (width === undefined) return widths;
  const gaps = GAP.length * (columns.length - 1);
  let excess = widths.reduce((sum, one) => sum + one, gaps) - width;
  for (; excess > 0; excess -= 1) {
    const widest = widths.reduce(
      (best, one, at) =>
        columns[at]?.cut !== undefined &&
        one > MIN_CUT_WIDTH &&
        (best === -1 || one > (widths[best] ?? 0))
          ? at
          : best,
      -1,
    );
    if (widest === -1) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
  }
  return widths;
}

/** Shortens a text to a width, with an ellipsis where characters are missing. */
export function cutText(
  text: string,
  width: number,
  cut: NonNullable<Column["cut"]>,
): string {
  if (text.length <= width) return text;
  const kept = Math.max(0, width - ELLIPSIS.length);
  const tail = cut === "middle" ? Math.floor(kept / 2) : 0;
  return `${text.slice(0, kept - tail)}${ELLIPSIS}${text.slice(text.length - tail)}`;
}
