import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  IMPORT_KILL_SCENARIOS,
  judgeImport,
  prepareImport,
} from "../support/import-kill-scenarios.ts";
import { killAtEachCall } from "../support/kill-at-each-call.ts";
import { soakFactor } from "../support/soak.ts";

/** Those that change or publish something. */
const CALLS = ["pwrite64", "pwritev", "fsync", "fdatasync", "rename"] as const;

void describe("an import that is killed at any system call", () => {
  for (const scenario of IMPORT_KILL_SCENARIOS) {
    void it(`continues, and writes no published blob again: ${scenario.name}`, async (test) => {
      const { killed, summary } = await killAtEachCall({
        name: scenario.name,
        calls: CALLS,
        part: soakFactor(0.01),
        prepare: prepareImport,
        judge: (dir) => judgeImport(dir, scenario),
      });
      assert(killed > 0);
      test.diagnostic(summary);
    });
  }
});
