import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { UpstreamQueues } from "../../../../src/images/warm/upstream-queues.ts";

/** Work that a test ends item by item. */
class HeldWork {
  readonly started: string[] = [];
  readonly #ends = new Map<string, PromiseWithResolvers<void>>();

  readonly run = async (item: string): Promise<void> => {
    this.started.push(item);
    const end = Promise.withResolvers<void>();
    this.#ends.set(item, end);
    await end.promise;
  };

  async end(item: string, failure?: Error): Promise<void> {
    const end = this.#ends.get(item);
    assert(end !== undefined, `${item} did not start`);
    if (failure === undefined) end.resolve();
    else end.reject(failure);
    await nextTurn();
  }
}

void describe("UpstreamQueues", () => {
  void it("run the items of each upstream a few at a time, in order", async () => {
    const work = new HeldWork();
    const queues = new UpstreamQueues(2, work.run);
    for (const item of ["a1", "a2", "a3", "b1"]) {
      queues.add(item.slice(0, 1), item);
    }
    const drained = queues.drain();
    assert.deepEqual(work.started, ["a1", "a2", "b1"]);
    await work.end("a2");
    assert.deepEqual(work.started, ["a1", "a2", "b1", "a3"]);
    for (const item of ["a1", "b1", "a3"]) await work.end(item);
    await drained;
  });

  void it("continue with the items of other upstreams while one hangs", async () => {
    const work = new HeldWork();
    const queues = new UpstreamQueues(1, work.run);
    queues.add("hanging", "h1");
    for (const item of ["x1", "x2", "x3"]) queues.add("other", item);
    const drained = queues.drain();
    for (const item of ["x1", "x2", "x3"]) await work.end(item);
    await work.end("h1");
    await drained;
  });

  void it("run items that running items add", async () => {
    const done: number[] = [];
    const queues: UpstreamQueues<number> = new UpstreamQueues(
      1,
      async (item) => {
        await nextTurn();
        done.push(item);
        if (item < 3) queues.add("a", item + 1);
      },
    );
    queues.add("a", 1);
    await queues.drain();
    assert.deepEqual(done, [1, 2, 3]);
  });

  void it("start nothing after a rejection, and reject when the running items have ended", async () => {
    const work = new HeldWork();
    const queues = new UpstreamQueues(2, work.run);
    for (const item of ["a1", "a2", "a3"]) queues.add("a", item);
    let isDrained = false;
    const drained = queues.drain().finally(() => {
      isDrained = true;
    });
    const failed = assert.rejects(drained, /aborted/);
    await work.end("a1", new Error("aborted"));
    assert.equal(isDrained, false);
    await work.end("a2");
    await failed;
    assert.deepEqual(work.started, ["a1", "a2"]);
  });

  void it("end immediately without items", async () => {
    await new UpstreamQueues(1, async () => {}).drain();
  });
});
