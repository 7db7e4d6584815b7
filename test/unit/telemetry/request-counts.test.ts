import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { createMetrics } from "../../../src/telemetry/metrics.ts";
import type { RequestFacts } from "../../../src/telemetry/request-counts.ts";

const facts: fc.Arbitrary<RequestFacts> = fc.record({
  method: fc.constantFrom("GET", "HEAD"),
  kind: fc.constantFrom("manifest", "blob"),
  status: fc.constantFrom("2xx", "error"),
  upstream: fc.constantFrom("docker.io", "quay.io", undefined),
  outcome: fc.constantFrom("hit", "miss", undefined),
  source: fc.constantFrom("cache", "upstream"),
});

const exchanges = fc.array(
  fc.oneof(
    fc.record({ facts, bytes: fc.nat(1_000) }),
    fc.constant("read" as const),
  ),
  { maxLength: 60 },
);

/** Lines of the counters of requests, without zeros. */
async function read(metrics: ReturnType<typeof createMetrics>) {
  const text = await metrics.registry.metrics();
  return text
    .split("\n")
    .filter((line) =>
      /^entrepot_(http_requests|cache_requests|served_bytes)/.test(line),
    )
    .filter((line) => !line.endsWith(" 0"))
    .sort();
}

void describe("requests that are counted", () => {
  void it("are added to the counters on each read, exactly once", async () => {
    await fc.assert(
      fc.asyncProperty(exchanges, async (steps) => {
        const metrics = createMetrics("1");
        const plain = createMetrics("1");
        for (const step of steps) {
          if (step === "read") {
            assert.deepEqual(await read(metrics), await read(plain));
            continue;
          }
          metrics.requests.add(step.facts, step.bytes);
          const { method, kind, status, upstream, outcome, source } =
            step.facts;
          plain.httpRequests.inc({ method, kind, status });
          if (upstream === undefined) continue;
          if (outcome !== undefined) {
            plain.cacheRequests.inc({ upstream, kind, outcome });
          }
          plain.servedBytes.inc({ upstream, source }, step.bytes);
        }
        assert.deepEqual(await read(metrics), await read(plain));
      }),
      { numRuns: 50 },
    );
  });
});
