import { createMetrics } from "../../../src/telemetry/metrics.ts";
import { code, markdownTable } from "./markdown-table.ts";

/** Lists Entrepot's own metrics; prom-client's defaults differ between platforms. */
export function metricsReference(): string[] {
  const metrics = createMetrics("0.0.0").registry.getMetricsAsArray();
  const rows = metrics
    .filter(({ name }) => name.startsWith("entrepot_"))
    .map((metric) => [
      code(metric.name),
      metric.type.toString(),
      labelsOf(metric).map(code).join(", "),
      metric.help,
    ]);
  return [markdownTable(["Metric", "Type", "Labels", "Meaning"], rows)];
}

/** prom-client keeps the labels of a metric in a property that its types leave out. */
function labelsOf(metric: object): readonly string[] {
  return "labelNames" in metric && Array.isArray(metric.labelNames)
    ? metric.labelNames.filter((name) => typeof name === "string")
    : [];
}
