import { type Bar, type FigureResult, type Measure, median } from "./figure.ts";

/** Outcome of one figure. */
export type FigureReport = {
  readonly name: string;
  readonly title: string;
  readonly seconds: number;
} & (
  | ({ readonly outcome: "measured" } & FigureResult)
  | { readonly outcome: "not measured"; readonly reason: string }
);

export function isMet({ value, demand }: Bar, mark: number): boolean {
  return demand === "at least" ? value >= mark : value <= mark;
}

/** Formats a table of medians and one of ratios in Markdown, which is readable on a terminal too. */
export function formatReports(reports: readonly FigureReport[]): string {
  const medians: string[][] = [];
  const bars: string[][] = [];
  const notes: string[] = [];
  for (const report of reports) {
    if (report.outcome === "not measured") {
      bars.push([
        report.title,
        "",
        `not measured: ${report.reason}`,
        "",
        "",
        "",
      ]);
      continue;
    }
    for (const [at, measure] of report.measures.entries()) {
      medians.push([at === 0 ? report.title : "", ...medianRow(measure)]);
    }
    for (const [at, bar] of report.bars.entries()) {
      bars.push([at === 0 ? report.title : "", ...barRow(bar)]);
    }
    for (const note of report.notes ?? []) {
      notes.push(`- ${report.title}: ${note}.`);
    }
  }
  const parts = [];
  if (medians.length > 0) {
    parts.push(
      table(
        ["figure", "contestant", "what", "median", "least … most"],
        medians,
      ),
    );
  }
  parts.push(table(["figure", "Entrepot", "is", "bar", "met", "aim"], bars));
  if (notes.length > 0) parts.push(notes.join("\n"));
  return parts.join("\n\n");
}

function medianRow({ contestant, what, unit, samples }: Measure): string[] {
  const show = (value: number) => formatQuantity(value, unit);
  return [
    contestant,
    what,
    show(median(samples)),
    `${show(Math.min(...samples))} … ${show(Math.max(...samples))}`,
  ];
}

function barRow(bar: Bar): string[] {
  const sign = bar.demand === "at least" ? "≥" : "≤";
  const show = (value: number) => `${formatNumber(value)} ${bar.unit}`;
  return [
    bar.text,
    show(bar.value),
    `${sign} ${show(bar.bar)}`,
    isMet(bar, bar.bar) ? "yes" : "**no**",
    bar.aim === undefined
      ? ""
      : `${sign} ${show(bar.aim)}${isMet(bar, bar.aim) ? ", met" : ""}`,
  ];
}

function formatQuantity(value: number, unit: Measure["unit"]): string {
  switch (unit) {
    case "bytes/s":
      return `${(value / 1e6).toFixed(0)} MB/s`;
    case "bytes":
      return `${(value / 1024 ** 2).toFixed(1)} MiB`;
    case "seconds":
      return value < 0.1
        ? `${(value * 1000).toFixed(1)} ms`
        : `${value.toFixed(2)} s`;
    case "CPU s/GiB":
      return `${value.toFixed(2)} s/GiB`;
    case "requests/s":
    case "requests":
      return `${value.toFixed(0)}${unit === "requests" ? "" : " /s"}`;
    default:
      return unit satisfies never;
  }
}

function formatNumber(value: number): string {
  if (Number.isInteger(value) || Math.abs(value) >= 100) {
    return value.toFixed(0);
  }
  return value.toFixed(
    Math.abs(value) >= 10 ? 1 : Math.abs(value) < 0.1 ? 3 : 2,
  );
}

function table(head: readonly string[], rows: readonly string[][]): string {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)),
  );
  const line = (cells: readonly string[]) =>
    `| ${widths.map((width, column) => (cells[column] ?? "").padEnd(width)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}
