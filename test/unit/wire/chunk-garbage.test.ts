import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { countPassingBytes } from "../../../src/wire/chunk-garbage.ts";

const MIB = 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

void describe("a body that passes in chunks", () => {
  void it("never leaves more than a few MiB of garbage", async () => {
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    for (let passed = 0; passed < 512 * MIB; passed += CHUNK_BYTES) {
      const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
      countPassingBytes(chunk.length);
      if (passed % MIB !== 0) continue;
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
      // V8 sweeps concurrently with the program.
      await nextTurn();
    }
    assert.ok(most < 32 * MIB, `${most} bytes`);
  });
});
