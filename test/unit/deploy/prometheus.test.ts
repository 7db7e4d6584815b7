import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml, parseAllDocuments } from "yaml";
import { createMetrics } from "../../../src/telemetry/metrics.ts";
import {
  OPERATOR_RULES,
  readRules,
  type RuleGroups,
  RULES,
} from "../../support/prometheus-rules.ts";

const KUBERNETES = join(
  import.meta.dirname,
  "../../../deploy/kubernetes/entrepot.yaml",
);

interface Manifest {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec: Readonly<Record<string, unknown>>;
}

async function readManifests(file: string): Promise<readonly Manifest[]> {
  const text = await readFile(file, "utf8");
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest);
}

const rules = await readRules();

void describe("the rules for Prometheus", () => {
  void it("use only metrics that exist, or that they record", () => {
    const known = new Set([
      ...createMetrics("0.0.0")
        .registry.getMetricsAsArray()
        .map(({ name }) => name),
      ...rules.flatMap(({ record }) => record ?? []),
    ]);
    for (const { expr } of rules) {
      const named = expr.match(/[a-z_:]*\bentrepot_[a-z0-9_:]+/g) ?? [];
      assert.ok(named.length > 0, expr);
      for (const name of named) assert.ok(known.has(name), name);
    }
  });

  void it("have an alert for each kind of trouble, with a summary that names the mirror or the registry", () => {
    const alerts = rules.filter(({ alert }) => alert !== undefined);
    assert.deepEqual(
      alerts.map(({ alert }) => alert),
      [
        "EntrepotUpstreamDown",
        "EntrepotBudgetLow",
        "EntrepotHitRatioDropped",
        "EntrepotDiskNearlyFull",
        "EntrepotStorageOverLimit",
        "EntrepotStorageDegraded",
        "EntrepotDigestMismatch",
        "EntrepotEvictedTooYoung",
      ],
    );
    for (const { alert, labels, annotations } of alerts) {
      assert.match(labels?.["severity"] ?? "", /^(info|warning|critical)$/);
      assert.match(
        annotations?.["summary"] ?? "",
        /\{\{ \$labels\.(?:instance|upstream) \}\}/,
        alert ?? "",
      );
      assert.ok((annotations?.["description"] ?? "").length > 40);
    }
  });

  void it("are the same for the Prometheus Operator, which finds the mirror's service", async () => {
    const { groups } = parseYaml(await readFile(RULES, "utf8")) as RuleGroups;
    const manifests = await readManifests(OPERATOR_RULES);
    const [monitor, rule] = manifests;
    assert.ok(monitor !== undefined);
    assert.deepEqual(
      manifests.map(({ kind }) => kind),
      ["ServiceMonitor", "PrometheusRule"],
    );
    assert.deepEqual(rule?.spec, { groups });
    const { matchLabels } = monitor.spec["selector"] as {
      matchLabels: Readonly<Record<string, string>>;
    };
    const [endpoint] = monitor.spec["endpoints"] as { port: string }[];
    const services = (await readManifests(KUBERNETES)).filter(
      ({ kind, metadata, spec }) =>
        kind === "Service" &&
        metadata.namespace === monitor.metadata.namespace &&
        Object.entries(matchLabels).every(
          ([key, value]) => metadata.labels?.[key] === value,
        ) &&
        (spec["ports"] as { name: string }[]).some(
          ({ name }) => name === endpoint?.port,
        ),
    );
    assert.deepEqual(
      services.map(({ metadata }) => metadata.name),
      ["entrepot-operator"],
    );
    // The dashboard selects by it.
    const label = monitor.spec["jobLabel"] as string;
    assert.equal(services[0]?.metadata.labels?.[label], "entrepot");
  });
});
