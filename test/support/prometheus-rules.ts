import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse as parseYaml } from "yaml";

const FOLDER = join(import.meta.dirname, "../../deploy/prometheus");

/** The recording and alert rules. */
export const RULES = join(FOLDER, "rules.yaml");
/** The same rules for the Prometheus Operator. */
export const OPERATOR_RULES = join(FOLDER, "prometheus-operator.yaml");

export interface PrometheusRule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface RuleGroups {
  readonly groups: readonly {
    readonly name: string;
    readonly rules: readonly PrometheusRule[];
  }[];
}

export async function readRules(): Promise<readonly PrometheusRule[]> {
  const { groups } = parseYaml(await readFile(RULES, "utf8")) as RuleGroups;
  return groups.flatMap(({ rules }) => rules);
}
