import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createMetrics } from "../../../src/telemetry/metrics.ts";
import {
  type DashboardQuery,
  queriesOf,
  readDashboard,
} from "../../support/dashboard.ts";

/** Labels that Prometheus adds, and those of a histogram's series. */
const FOREIGN_LABELS = ["job", "instance", "le"];

const WORDS_OF_PROMQL = new Set([
  "by",
  "clamp_min",
  "count",
  "histogram_quantile",
  "increase",
  "max",
  "or",
  "rate",
  "sum",
  "vector",
]);

const dashboard = await readDashboard();
const queries = queriesOf(dashboard);
const labelsByName = labelsOfSeries();

void describe("the dashboard", () => {
  for (const query of queries) {
    void it(`"${query.panel}" queries metrics and labels that exist: ${query.expression}`, () => {
      const known = namesIn(query);
      assert.ok(known.length > 0);
      for (const name of known) {
        assert.ok(labelsByName.has(name), `there is no metric ${name}`);
      }
      const labels = known.flatMap((name) => labelsByName.get(name) ?? []);
      for (const label of labelsIn(query)) {
        assert.ok(
          labels.includes(label) || FOREIGN_LABELS.includes(label),
          `${known.join()} has no label ${label}`,
        );
      }
    });
  }

  void it("shows hits, misses, bytes saved, upstream health, budgets, room and fills", () => {
    const shown = new Set(queries.flatMap(namesIn));
    for (const name of [
      "entrepot_cache_requests_total",
      "entrepot_served_bytes_total",
      "entrepot_upstream_received_bytes_total",
      "entrepot_upstream_up",
      "entrepot_upstream_ratelimit_limit",
      "entrepot_upstream_ratelimit_remaining",
      "entrepot_storage_bytes",
      "entrepot_storage_degraded",
      "entrepot_fills_in_progress",
      "entrepot_fill_failures_total",
    ]) {
      assert.ok(shown.has(name), name);
    }
  });

  void it("has panels that do not overlap and have unique ids", () => {
    const cells = new Set<string>();
    for (const { id, title, gridPos } of dashboard.panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          assert.ok(x < 24 && !cells.has(`${x},${y}`), `${title} at ${x},${y}`);
          cells.add(`${x},${y}`);
        }
      }
      assert.ok(!cells.has(`#${id}`), title);
      cells.add(`#${id}`);
    }
  });
});

/** Lists each series that is scraped, with its labels. */
function labelsOfSeries(): Map<string, readonly string[]> {
  const { registry } = createMetrics("0.0.0");
  const series = new Map<string, readonly string[]>();
  for (const metric of registry.getMetricsAsArray()) {
    // The library stores this property, but its types omit it.
    const { name, type, labelNames } = metric as unknown as {
      name: string;
      type: string;
      labelNames: readonly string[];
    };
    const suffixes =
      type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    for (const suffix of suffixes) series.set(name + suffix, labelNames);
  }
  assert.ok(series.has("entrepot_build_info"));
  return series;
}

/** Returns the names of series: words outside of braces, brackets and `by (…)`. */
function namesIn({ expression }: DashboardQuery): string[] {
  const bare = expression
    .replaceAll(/\{[^}]*\}|\[[^\]]*\]/g, "")
    .replaceAll(/\bby \([^)]*\)/g, "");
  return (bare.match(/\b[a-z][a-z0-9_]*\b/g) ?? []).filter(
    (word) => !WORDS_OF_PROMQL.has(word),
  );
}

function labelsIn({ expression, legend }: DashboardQuery): string[] {
  const grouped = [...expression.matchAll(/\bby \(([^)]*)\)/g)].flatMap(
    ([, list = ""]) => list.split(",").map((label) => label.trim()),
  );
  const selected = [...expression.matchAll(/([a-z_]+)(?:=~|!~|!=|=)"/g)].map(
    ([, label = ""]) => label,
  );
  const shown = [...legend.matchAll(/\{\{(\w+)\}\}/g)].map(
    ([, label = ""]) => label,
  );
  return [...grouped, ...selected, ...shown];
}
