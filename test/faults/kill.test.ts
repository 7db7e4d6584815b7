import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { killAtEachCall } from "../support/kill-at-each-call.ts";
import { judgeAfterKill, KILL_SCENARIOS } from "../support/kill-scenarios.ts";

void describe("a process that is killed at any system call", () => {
  for (const scenario of KILL_SCENARIOS) {
    void it(`leaves a consistent root: ${scenario.name}`, async (test) => {
      const { killed, summary } = await killAtEachCall({
        name: scenario.name,
        prepare: scenario.prepare,
        judge: (root) => judgeAfterKill(root, scenario),
      });
      assert(killed > 0);
      test.diagnostic(summary);
    });
  }
});
