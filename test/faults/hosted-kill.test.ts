import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  HOSTED_KILL_SCENARIOS,
  judgeHosted,
  prepareHosted,
} from "../support/hosted-kill-scenarios.ts";
import { killAtEachCall } from "../support/kill-at-each-call.ts";
import { CHANGING_CALLS } from "../support/syscall-killer.ts";

void describe("a process that is killed at any system call of a write to a hosted repository", () => {
  for (const scenario of HOSTED_KILL_SCENARIOS) {
    void it(`loses nothing acknowledged and leaves nothing behind: ${scenario.name}`, async (test) => {
      const { killed, summary } = await killAtEachCall({
        name: scenario.name,
        // The main thread writes to threads and to the notes of the test only.
        calls: CHANGING_CALLS.filter((call) => call !== "write"),
        prepare: (root) => prepareHosted(root, scenario),
        judge: (root) => judgeHosted(root, scenario),
      });
      assert(killed > 0);
      test.diagnostic(summary);
    });
  }
});
