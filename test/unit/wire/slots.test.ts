import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Slots } from "../../../src/wire/slots.ts";
import { upstreamErrorOf } from "../../support/upstream-harness.ts";

const SIGNAL = new AbortController().signal;

void describe("Slots", () => {
  void it("admits a bounded number of requests, the others in order of arrival", async () => {
    const slots = new Slots(2, "u");
    const order: number[] = [];
    const held = await Promise.all([
      slots.acquire(SIGNAL),
      slots.acquire(SIGNAL),
    ]);
    const waiting = [0, 1, 2].map(async (at) => {
      const release = await slots.acquire(SIGNAL);
      order.push(at);
      release();
    });
    assert.equal(slots.waiting, 3);
    assert.deepEqual(order, []);
    held[0]();
    await Promise.all(waiting);
    assert.deepEqual(order, [0, 1, 2]);
    assert.equal(slots.waiting, 0);
  });

  void it("admits any number if the count is 0, and reports whether one is held", async () => {
    const slots = new Slots(0, "u");
    const held = await Promise.all(
      Array.from({ length: 100 }, () => slots.acquire(SIGNAL)),
    );
    assert.equal(slots.isIdle, false);
    for (const release of held) release();
    assert.equal(slots.isIdle, true);
  });

  void it("counts a slot that is released twice only once", async () => {
    const slots = new Slots(1, "u");
    const release = await slots.acquire(SIGNAL);
    release();
    release();
    await slots.acquire(SIGNAL);
    void slots.acquire(SIGNAL);
    assert.equal(slots.waiting, 1);
  });

  void it("never gives a slot to a request that has left the queue", async () => {
    const slots = new Slots(1, "u");
    const release = await slots.acquire(SIGNAL);
    const leaving = new AbortController();
    const gone = upstreamErrorOf(slots.acquire(leaving.signal));
    const staying = slots.acquire(SIGNAL);
    leaving.abort(new Error("too late"));
    const error = await gone;
    assert.equal(error.kind, "timeout");
    assert.equal((error.cause as Error).message, "too late");
    release();
    (await staying)();
    assert.equal(slots.waiting, 0);
  });

  void it("refuses requests that find the queue full or whose signal has aborted", async () => {
    const slots = new Slots(1, "u", 2);
    await slots.acquire(SIGNAL);
    void slots.acquire(SIGNAL);
    void slots.acquire(SIGNAL);
    const error = await upstreamErrorOf(slots.acquire(SIGNAL));
    assert.equal(error.kind, "overloaded");
    assert.equal(error.retryAfterMs, 1_000);
    const left = await upstreamErrorOf(slots.acquire(AbortSignal.abort()));
    assert.equal(left.kind, "timeout");
    assert.equal(slots.waiting, 2);
  });
});
