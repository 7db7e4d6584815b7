import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { describe, it } from "node:test";
import { withDeadline } from "../../../src/wire/deadline.ts";

function countTimers(): number {
  return process.getActiveResourcesInfo().filter((one) => one === "Timeout")
    .length;
}

/** Ends with the signal's reason. */
function never(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error));
    if (signal.aborted) reject(signal.reason as Error);
  });
}

void describe("work with a deadline", () => {
  void it("leaves no timer and no listener, however it ends", async () => {
    const closing = new AbortController();
    const before = countTimers();
    for (let i = 0; i < 1_000; i++) {
      await withDeadline(60_000, async () => i, closing.signal);
      await assert.rejects(
        withDeadline(
          60_000,
          () => Promise.reject(new Error("broken")),
          closing.signal,
        ),
        /broken/,
      );
    }
    assert.equal(countTimers(), before);
    assert.equal(getEventListeners(closing.signal, "abort").length, 0);
  });

  void it("is aborted when its time is over", async () => {
    await assert.rejects(withDeadline(5, never), { name: "TimeoutError" });
  });

  void it("is aborted when the closing signal aborts, before or while it runs", async () => {
    const closing = new AbortController();
    const running = withDeadline(60_000, never, closing.signal);
    closing.abort(new Error("the mirror stops"));
    await assert.rejects(running, /the mirror stops/);
    await assert.rejects(
      withDeadline(60_000, never, closing.signal),
      /the mirror stops/,
    );
  });
});
