import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { killAtEachCall } from "../support/kill-at-each-call.ts";
import { soakFactor } from "../support/soak.ts";
import {
  judgeTakeover,
  prepareTakeover,
  TAKEOVER_KILL_SCENARIOS,
} from "../support/takeover-kill-scenarios.ts";

/** Those that change or publish something: files are opened to be read, too. */
const CALLS = [
  "pwrite64",
  "fsync",
  "fdatasync",
  "rename",
  "link",
  "unlink",
] as const;

void describe("a take-over that is killed at any system call", () => {
  for (const scenario of TAKEOVER_KILL_SCENARIOS) {
    void it(`continues, and changes nothing in the folder: ${scenario.name}`, async (test) => {
      const { killed, summary } = await killAtEachCall({
        name: scenario.name,
        calls: CALLS,
        part: soakFactor(0.02),
        prepare: prepareTakeover,
        judge: (dir) => judgeTakeover(dir, scenario),
      });
      assert(killed > 0);
      test.diagnostic(summary);
    });
  }
});
