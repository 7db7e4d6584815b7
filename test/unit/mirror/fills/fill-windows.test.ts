import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { windowBytesFor } from "../../../../src/mirror/fills/fill-windows.ts";

const MIB = 1024 * 1024;

void describe("the windows of fills", () => {
  for (const [fills, windowBytes] of [
    [0, 4 * MIB],
    [1, 4 * MIB],
    [16, 4 * MIB],
    [17, 2 * MIB],
    [200, 256 * 1024],
    [1_000, 64 * 1024],
    [4_096, 64 * 1024],
  ] as const) {
    void it(`are ${windowBytes} bytes each of ${fills}`, () => {
      assert.equal(windowBytesFor(fills), windowBytes);
    });
  }

  void it("take 64 MiB in total for up to a thousand fills, and are a power of two", () => {
    for (let fills = 1; fills <= 1_024; fills++) {
      const windowBytes = windowBytesFor(fills);
      assert.ok(windowBytes * fills <= 64 * MIB);
      assert.equal(Math.log2(windowBytes) % 1, 0);
    }
  });
});
