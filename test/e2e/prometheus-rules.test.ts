import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import type { AfterTest } from "../support/after-test.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { readRules, RULES } from "../support/prometheus-rules.ts";
import { refusal, runCommand } from "../support/run-command.ts";
import { tempDir } from "../support/temp-dir.ts";

const CASES = join(import.meta.dirname, "prometheus-rules.yaml");

interface Cases {
  readonly tests: readonly {
    readonly interval: string;
    readonly alert_rule_test?: readonly {
      readonly alertname: string;
      readonly exp_alerts: readonly unknown[];
    }[];
  }[];
}

/** Changes of the rules that some test must notice. */
const BREAKS: readonly (readonly [from: string, to: string])[] = [
  ["(entrepot_upstream_up) == 0", "(entrepot_upstream_up) == 1"],
  ["max by (job, instance, upstream)", "min by (job, instance, upstream)"],
  ["ratio < 0.1", "ratio <= 0.1"],
  ["ratio_rate1h < 0.6 *", "ratio_rate1h < 0.9 *"],
  ["> 100 / 3600", "> 10 / 3600"],
  ['outcome!~"negative|error"}[1h]', 'outcome!~"error"}[1h]'],
  ["ratio < 0.04", "ratio < 0.05"],
  ["ratio > 1.05", "ratio > 1.1"],
  ["(entrepot_storage_limit_bytes > 0)", "entrepot_storage_limit_bytes"],
  ["entrepot_storage_degraded == 1", "entrepot_storage_degraded >= 0"],
  ["mismatches_total[15m]) > 0", "mismatches_total[15m]) >= 0"],
  ["mismatches_total[15m])", "mismatches_total[1h])"],
  ["< 24 * 3600", "< 96 * 3600"],
  ['{reason=~"size|free"}', "{}"],
  ["clamp_min(", "clamp_max("],
];

void describe("the rules for Prometheus", () => {
  void it("are valid, and each one passes its tests", async (test) => {
    await requireCommands(["promtool"]);
    await runCommand("promtool", ["check", "rules", RULES]);
    await runTests(test, await readFile(RULES, "utf8"));
  });

  void it("have a test for each alert in which it fires, and one in which it does not", async () => {
    const { tests } = parseYaml(await readFile(CASES, "utf8")) as Cases;
    const cases = tests.flatMap((one) => one.alert_rule_test ?? []);
    for (const { alert } of await readRules()) {
      if (alert === undefined) continue;
      const counts = cases
        .filter(({ alertname }) => alertname === alert)
        .map(({ exp_alerts }) => exp_alerts.length);
      assert.ok(counts.includes(0) && counts.some((count) => count > 0), alert);
    }
  });

  void it("do not pass when one of them is broken", async (test) => {
    const text = await readFile(RULES, "utf8");
    const broken = BREAKS.map(([from, to]) => {
      assert.ok(text.includes(from), from);
      return { change: to, rules: text.replaceAll(from, to) };
    });
    // Every alert with a delay needs it.
    for (const { 0: delay, index } of text.matchAll(/^ +for: \d+m\n/gm)) {
      const rules = text.slice(0, index) + text.slice(index + delay.length);
      broken.push({ change: `no delay at ${index}`, rules });
    }
    assert.equal(broken.length, BREAKS.length + 7);
    await Promise.all(
      broken.map(async ({ change, rules }) => {
        assert.match(await failureOf(test, rules, change), /FAILED/, change);
      }),
    );
  });
});

/** @throws Error with the output of promtool if a test fails */
async function runTests(test: AfterTest, rules: string): Promise<void> {
  const dir = await tempDir(test, "rules-");
  await writeFile(join(dir, "rules.yaml"), rules);
  const cases = parseYaml(await readFile(CASES, "utf8")) as Cases;
  const files: string[] = [];
  // A case that lasts a day would take seconds with an evaluation each minute.
  for (const interval of new Set(cases.tests.map((one) => one.interval))) {
    const tests = cases.tests.filter((one) => one.interval === interval);
    const file = join(dir, `${interval}.yaml`);
    const text = { ...cases, evaluation_interval: interval, tests };
    await writeFile(file, JSON.stringify(text));
    files.push(file);
  }
  await runCommand("promtool", ["test", "rules", ...files]);
}

/** @throws Error that names the change if no test noticed it */
async function failureOf(
  test: AfterTest,
  rules: string,
  change: string,
): Promise<string> {
  try {
    return await refusal(runTests(test, rules));
  } catch (error) {
    throw new Error(`no test noticed: ${change}`, { cause: error });
  }
}
