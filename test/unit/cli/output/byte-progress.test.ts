import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { describe, it } from "node:test";
import { showBytes } from "../../../../src/cli/output/byte-progress.ts";
import { ProgressLine } from "../../../../src/cli/output/progress-line.ts";
import { CollectedOutput } from "../../../support/collected-output.ts";

void describe("the progress of bytes", () => {
  for (const [totalBytes, shown] of [
    [
      4_000,
      [
        "25 %  1000 B of 3.9 KiB, 977 KiB/s, about 0s left",
        "50 %  2.0 KiB of 3.9 KiB, 2.0 KiB/s, about 1s left",
        "100 %  3.9 KiB of 3.9 KiB, 2.0 KiB/s, about 0s left",
      ],
    ],
    [
      undefined,
      ["1000 B, 977 KiB/s", "2.0 KiB, 2.0 KiB/s", "3.9 KiB, 2.0 KiB/s"],
    ],
  ] as const) {
    void it(`is one line on a terminal, and nothing elsewhere (of ${totalBytes ?? "unknown"} bytes)`, async () => {
      for (const isTTY of [true, false]) {
        const stream = Object.assign(new CollectedOutput(), {
          isTTY,
          columns: 60,
        });
        let nowMs = 0;
        const line = new ProgressLine(stream, () => nowMs);
        const chunks = [1_000, 1_000, 2_000].map((size) => Buffer.alloc(size));
        const passed: Uint8Array[] = [];
        const bytes = Readable.from(chunks);
        for await (const chunk of showBytes(bytes, line, totalBytes)) {
          passed.push(chunk);
          nowMs += 1_000;
        }
        line.end();
        assert.deepEqual(passed, chunks);
        assert.deepEqual(
          stream.text.split("\r\u001B[K"),
          isTTY ? ["", ...shown, ""] : [""],
        );
      }
    });
  }

  void it("is shown a few times a second, cut to the terminal, and removed before a message", () => {
    const stream = Object.assign(new CollectedOutput(), {
      isTTY: true,
      columns: 5,
    });
    let nowMs = 0;
    const line = new ProgressLine(stream, () => nowMs);
    line.show(() => "first text");
    nowMs += 100;
    line.show(() => "too early");
    line.print("a message\n");
    line.draw("last text");
    line.end();
    line.end();
    assert.equal(
      stream.text,
      "\r\u001B[Kfirs\r\u001B[Ka message\n\r\u001B[Klast\r\u001B[K",
    );
  });
});
