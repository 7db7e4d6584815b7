import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { startMirror } from "../../support/mirror-harness.ts";

void it("closes the cache even if stopping another part fails", async (test) => {
  let fails = true;
  const mirror = await startMirror(test, [], {
    scrubSchedule: () => () => {
      if (!fails) return;
      fails = false;
      throw new Error("a timer that stays");
    },
  });
  assert.ok(existsSync(join(mirror.root, "lock-owner")));
  await assert.rejects(mirror.close(), /a timer that stays/);
  assert.ok(!existsSync(join(mirror.root, "lock-owner")));
});
