import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { withinDeadline } from "../../../src/mirror/answer-deadline.ts";

void describe("a wait with a deadline", () => {
  void it("returns a result, or throws an error, that arrives in time", async () => {
    const late: number[] = [];
    const keep = (value: number): number => late.push(value);
    assert.equal(
      await withinDeadline(Promise.resolve(1), "a", keep, 60_000),
      1,
    );
    await assert.rejects(
      withinDeadline<number>(
        Promise.reject(new Error("no")),
        "a",
        keep,
        60_000,
      ),
      { message: "no" },
    );
    assert.deepEqual(late, []);
  });

  void it("ends at the deadline, and passes a later result to onLate", async () => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const { promise: given, resolve: give } = Promise.withResolvers<number>();
    await assert.rejects(withinDeadline(promise, "a", give, 1), {
      name: "UpstreamError",
      kind: "timeout",
      upstream: "a",
    });
    resolve(2);
    assert.equal(await given, 2);
  });

  void it("ignores an error after the deadline", async () => {
    const { promise, reject } = Promise.withResolvers<number>();
    await assert.rejects(
      withinDeadline(promise, "a", () => assert.fail(), 1),
      { kind: "timeout" },
    );
    reject(new Error("late"));
    await new Promise((resolve) => setImmediate(resolve));
  });
});
