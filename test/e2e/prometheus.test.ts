import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { systemClock } from "../../src/telemetry/clock.ts";
import { afterSuite } from "../support/after-test.ts";
import { ChildMirror, hubConfig } from "../support/child-mirror.ts";
import { queriesOf, readDashboard } from "../support/dashboard.ts";
import { requireCommands } from "../support/engines/engine.ts";
import { Prometheus } from "../support/engines/prometheus.ts";
import { buildImage, type TestImage } from "../support/image-builder.ts";
import { readRules } from "../support/prometheus-rules.ts";
import { runCommand } from "../support/run-command.ts";
import { ScriptedBudget } from "../support/scripted-budget.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";

void describe("a real Prometheus", () => {
  const suite = afterSuite();
  let mirror: ChildMirror;
  let prometheus: Prometheus;
  let image: TestImage;
  let budget: ScriptedBudget;
  let upstream: ScriptedUpstream;

  before(async () => {
    await requireCommands(["prometheus", "promtool"]);
    upstream = await ScriptedUpstream.start(suite);
    image = buildImage({ seed: "prometheus", layers: [2_000_000] });
    upstream.content.addImage("library/app", image, "1");
    budget = new ScriptedBudget(upstream, { clock: systemClock, limit: 100 });
    mirror = await ChildMirror.start(suite, {
      config: hubConfig(upstream.origin),
    });
    prometheus = await Prometheus.start(
      suite,
      new URL(mirror.operatorOrigin).host,
    );
    await pull(mirror, image);
    // Until everything is stored, a second pull may join the downloads of the first.
    await prometheus.until(`entrepot_storage_bytes == ${storedBytesOf(image)}`);
    await pull(mirror, image);
    // A rate needs at least two scrapes.
    await prometheus.until(
      'count_over_time(entrepot_cache_requests_total{outcome="hit",kind="tag"}[1m]) > 1',
    );
  });

  void it("scrapes the mirror", async () => {
    const [up, ...others] = await prometheus.query("up");
    assert.deepEqual(others, []);
    assert.equal(up?.value, 1);
    assert.equal(up.metric["job"], "entrepot");
  });

  void it("receives the outcomes of two pulls", async () => {
    const value = async (expression: string): Promise<number | undefined> =>
      (await prometheus.query(expression))[0]?.value;
    const outcomes = await prometheus.query(
      "sum by (outcome) (entrepot_cache_requests_total)",
    );
    assert.deepEqual(
      outcomes.map(({ metric, value: count }) => [metric["outcome"], count]),
      [
        ["hit", 3],
        ["miss", 3],
      ],
    );
    const bytes = storedBytesOf(image);
    assert.equal(await value("sum(entrepot_served_bytes_total)"), 2 * bytes);
    assert.equal(
      await value("sum(entrepot_upstream_received_bytes_total)"),
      bytes,
    );
    assert.equal(await value("entrepot_storage_bytes"), bytes);
    assert.equal(await value("entrepot_upstream_up"), 1);
    assert.equal(
      await value("entrepot_upstream_ratelimit_remaining"),
      budget.remaining(),
    );
    assert.equal(await value("entrepot_storage_degraded"), 0);
    assert.equal(await value("entrepot_digest_mismatches_total"), 0);
  });

  void it("answers every query of the dashboard with a number, also those of trouble", async () => {
    await causeTrouble(mirror, upstream);
    await prometheus.until(
      "count_over_time(entrepot_upstream_resumes_total[1m]) > 1 and on (upstream) count_over_time(entrepot_fill_failures_total[1m]) > 1",
    );
    const queries = queriesOf(await readDashboard());
    assert.ok(queries.length > 20);
    for (const { panel, expression } of queries) {
      const samples = await prometheus.query(
        expression.replaceAll(/\$__(range|rate_interval)/g, "5m"),
      );
      assert.ok(
        samples.some(({ value }) => Number.isFinite(value)),
        `${panel} shows nothing: ${expression}`,
      );
    }
  });

  void it("records every rule, and fires the alert of a wrong digest alone", async () => {
    const recorded = (await readRules()).flatMap(({ record }) => record ?? []);
    assert.ok(recorded.length >= 6);
    for (const name of recorded) {
      const [sample] = await prometheus.until(name);
      assert.ok(Number.isFinite(sample?.value), name);
    }
    const firing = await prometheus.until('ALERTS{alertstate="firing"}');
    assert.deepEqual(
      firing.map(({ metric }) => metric["alertname"]),
      ["EntrepotDigestMismatch"],
    );
    for (const { name, lastError } of await prometheus.rules()) {
      assert.equal(lastError ?? "", "", name);
    }
  });

  void it("accepts the names and types of all metrics", async () => {
    const types = await prometheus.types();
    for (const [name, type] of Object.entries(types)) {
      if (!name.startsWith("entrepot_")) continue;
      assert.equal(type === "counter", name.endsWith("_total"), name);
    }
    const { stdout, stderr } = await runCommand("sh", [
      "-c",
      'printf %s "$1" | promtool check metrics 2>&1 | grep "^entrepot_" || true',
      "sh",
      await mirror.metrics(),
    ]);
    assert.equal(stdout + stderr, "");
  });
});

/** Has one download resumed and another one fail by its digest. */
async function causeTrouble(
  mirror: ChildMirror,
  upstream: ScriptedUpstream,
): Promise<void> {
  const [whole, wrong] = ["resumed", "wrong"].map((seed) =>
    buildImage({ seed, layers: [500_000] }),
  );
  assert.ok(whole !== undefined && wrong !== undefined);
  upstream.content.addImage("library/resumed", whole, "1");
  upstream.content.addImage("library/wrong", wrong, "1");
  upstream.when(
    { kind: "blob", repository: "library/resumed" },
    { cut: { atByte: 1, by: "fin" } },
    { times: 1 },
  );
  upstream.when(
    { kind: "blob", repository: "library/wrong" },
    { flip: "middle" },
  );
  for (const { digest } of whole.blobs) {
    const url = `${mirror.origin}/v2/library/resumed/blobs/${digest}`;
    const response = await fetch(url);
    assert.equal(response.status, 200);
    await response.arrayBuffer();
  }
  const url = `${mirror.origin}/v2/library/wrong/blobs/${wrong.blobs[0]?.digest}`;
  await assert.rejects(async () => {
    const response = await fetch(url);
    if (!response.ok) throw new Error(String(response.status));
    await response.arrayBuffer();
  });
}

async function pull(mirror: ChildMirror, image: TestImage): Promise<void> {
  const paths = [
    "manifests/1",
    ...image.blobs.map(({ digest }) => `blobs/${digest}`),
  ];
  for (const path of paths) {
    const response = await fetch(`${mirror.origin}/v2/library/app/${path}`);
    assert.equal(response.status, 200);
    await response.arrayBuffer();
  }
}

function storedBytesOf({ manifest, blobs }: TestImage): number {
  return blobs.reduce(
    (sum, { sizeBytes }) => sum + sizeBytes,
    manifest.sizeBytes,
  );
}
