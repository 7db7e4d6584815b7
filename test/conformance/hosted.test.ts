import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { systemClock } from "../../src/telemetry/clock.ts";
import {
  buildConformanceSuite,
  runFullConformance,
} from "../support/conformance-suite.ts";
import { hostedConfig } from "../support/hosted-config.ts";
import { startMirror } from "../support/mirror-harness.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Fewer would mean that the suite tested almost nothing. */
const MIN_TESTS = 300;

void describe("the OCI conformance suite against hosted repositories", () => {
  let program = "";
  before(async () => {
    program = await buildConformanceSuite();
  });

  for (const version of ["1.1", "dev"] as const) {
    void it(`has no complaint of version ${version}`, async (test) => {
      const mirror = await startMirror(test, [], {
        config: { hosted: [hostedConfig()] },
        clock: systemClock,
      });
      const result = await runFullConformance(program, {
        version,
        registry: `127.0.0.1:${mirror.port}`,
        repositories: ["local/conformance/one", "local/conformance/two"],
        results: await tempDir(test, "conformance-"),
      });
      assert.deepEqual(result.complaints, []);
      assert.deepEqual(
        [result.failures, result.errors, result.skipped],
        [0, 0, 0],
      );
      assert.ok(result.tests >= MIN_TESTS, `${result.tests} tests`);
    });
  }
});
