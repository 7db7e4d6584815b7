import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { AfterTest } from "../after-test.ts";
import { Child } from "../child-process.ts";
import { COMPOSE } from "../dashboard.ts";
import { RULES } from "../prometheus-rules.ts";
import { tempDir } from "../temp-dir.ts";

const SCRAPED_ADDRESS = "mirror:5001";
const SCRAPED_WITHIN_MS = 30_000;

/** One series of a query's result, with its last value. */
export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A Prometheus process with the configuration of `deploy/compose`. */
export class Prometheus {
  readonly #origin: string;
  readonly #child: Child;

  private constructor(origin: string, child: Child) {
    this.#origin = origin;
    this.#child = child;
  }

  /** @param target `127.0.0.1:PORT` of the mirror's operator listener */
  static async start(test: AfterTest, target: string): Promise<Prometheus> {
    const dir = await tempDir(test, "prometheus-");
    const text = await readFile(join(COMPOSE, "prometheus.yml"), "utf8");
    const file = join(dir, "prometheus.yml");
    // A shorter interval, because the test waits for a scrape.
    await writeFile(
      file,
      text
        .replace(SCRAPED_ADDRESS, target)
        .replace(
          "scrape_interval: 15s",
          "scrape_interval: 1s\n  evaluation_interval: 1s",
        ),
    );
    await copyFile(RULES, join(dir, "rules.yaml"));
    const child = new Child(test, {
      command: "prometheus",
      args: [
        `--config.file=${file}`,
        `--storage.tsdb.path=${join(dir, "data")}`,
        "--web.listen-address=127.0.0.1:0",
      ],
    });
    const address = await child.line(
      (line) => /Listening on.*address=(127\.0\.0\.1:\d+)/.exec(line)?.[1],
    );
    return new Prometheus(`http://${address}`, child);
  }

  /** @throws Error if Prometheus rejects the expression */
  async query(expression: string): Promise<readonly Sample[]> {
    const response = await fetch(`${this.#origin}/api/v1/query`, {
      method: "POST",
      body: new URLSearchParams({ query: expression }),
    });
    const answer = (await response.json()) as {
      status: string;
      error?: string;
      data: { result: { metric: Sample["metric"]; value: [number, string] }[] };
    };
    if (answer.status !== "success") {
      throw new Error(`${expression}: ${answer.error}`);
    }
    return answer.data.result.map(({ metric, value }) => ({
      metric,
      value: Number(value[1]),
    }));
  }

  /** Waits until an expression has a result. */
  async until(expression: string): Promise<readonly Sample[]> {
    const endMs = performance.now() + SCRAPED_WITHIN_MS;
    for (;;) {
      const samples = await this.query(expression);
      if (samples.length > 0) return samples;
      if (performance.now() > endMs) {
        throw new Error(`never: ${expression}\n${this.#child.output()}`);
      }
      await delay(500);
    }
  }

  /** Returns the rules with the error of their last evaluation, if it failed. */
  async rules(): Promise<
    readonly { readonly name: string; readonly lastError?: string }[]
  > {
    const response = await fetch(`${this.#origin}/api/v1/rules`);
    const { data } = (await response.json()) as {
      data: { groups: { rules: { name: string; lastError?: string }[] }[] };
    };
    return data.groups.flatMap(({ rules }) => rules);
  }

  /** Returns the types that the scraped text declares, by metric. */
  async types(): Promise<Readonly<Record<string, string>>> {
    const response = await fetch(`${this.#origin}/api/v1/metadata`);
    const { data } = (await response.json()) as {
      data: Record<string, { type: string }[]>;
    };
    return Object.fromEntries(
      Object.entries(data).map(([name, [first]]) => [name, first?.type ?? ""]),
    );
  }
}
