import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  FillSlots,
  type FillSlotsOptions,
  type SlotRequest,
} from "../../../../src/mirror/fills/fill-slots.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import type { Release } from "../../../../src/wire/semaphore.ts";

const REFUSED = (error: unknown): boolean =>
  error instanceof RegistryError &&
  error.code === "UNAVAILABLE" &&
  error.status === 503 &&
  (error.retryAfterMs ?? 0) > 0;

const from = (
  upstream: string,
  concurrency = 0,
  isWanted = () => true,
): SlotRequest => ({ upstream, concurrency, isWanted });

function makeSlots(limit: number, options: Partial<FillSlotsOptions> = {}) {
  return new FillSlots({
    limit: () => limit,
    makeRoom: () => undefined,
    ...options,
  });
}

function held(slots: FillSlots, request: SlotRequest): Release {
  const release = slots.take(request);
  assert.ok(release, "no slot is free");
  return release;
}

void describe("the slots of fills", () => {
  void it("go to waiting downloads in order of arrival", async () => {
    const slots = makeSlots(1);
    const release = held(slots, from("a"));
    const admitted: number[] = [];
    const waiting = [1, 2].map(async (number) => {
      const end = await slots.wait(from("a"));
      admitted.push(number);
      end();
    });
    assert.equal(slots.take(from("a")), undefined);
    release();
    release();
    await Promise.all(waiting);
    assert.deepEqual(admitted, [1, 2]);
    assert.equal(slots.held, 0);
  });

  void it("alternate between upstreams, however many downloads wait for one of them", async () => {
    const slots = makeSlots(1);
    const release = held(slots, from("a"));
    const admitted: string[] = [];
    const waiting = ["a", "a", "a", "b", "c", "b"].map(async (upstream) => {
      const end = await slots.wait(from(upstream));
      admitted.push(upstream);
      end();
    });
    release();
    await Promise.all(waiting);
    assert.deepEqual(admitted, ["b", "a", "c", "b", "a", "a"]);
  });

  void it("go first to the upstream that holds the fewest", async () => {
    const slots = makeSlots(3);
    const releases = ["a", "a", "b"].map((name) => held(slots, from(name)));
    const admitted: string[] = [];
    const waiting = ["a", "b", "c"].map(async (upstream) => {
      await slots.wait(from(upstream));
      admitted.push(upstream);
    });
    await nextTurn();
    for (const release of releases) release();
    await Promise.all(waiting);
    assert.deepEqual(admitted, ["c", "a", "b"]);
  });

  void it("are not held by downloads that wait for their upstream", async () => {
    const slots = makeSlots(2);
    const first = held(slots, from("a", 1));
    const second = slots.wait(from("a", 1));
    assert.equal(slots.held, 1);
    const other = held(slots, from("b", 1));
    assert.equal(slots.held, 2);
    other();
    first();
    (await second)();
    assert.equal(slots.held, 0);
  });

  void it("count ranges against the limit of their upstream", () => {
    const slots = makeSlots(1);
    held(slots, from("a", 2));
    const release = slots.takeSide(from("a", 2));
    assert.ok(release);
    assert.equal(slots.takeSide(from("a", 2)), undefined);
    release();
    assert.ok(slots.takeSide(from("a", 2)));
  });

  void it("go first to downloads that a client waits for, and are freed for these only", async () => {
    const sought: (string | undefined)[] = [];
    const slots = makeSlots(1, {
      makeRoom: (upstream) => sought.push(upstream),
    });
    const release = held(slots, from("a"));
    const admitted: string[] = [];
    const unwanted = slots.wait(from("a", 0, () => false)).then((end) => {
      admitted.push("unwanted");
      end();
    });
    assert.deepEqual(sought, []);
    const wanted = slots.wait(from("a")).then((end) => {
      admitted.push("wanted");
      end();
    });
    assert.deepEqual(sought, [undefined]);
    release();
    await Promise.all([unwanted, wanted]);
    assert.deepEqual(admitted, ["wanted", "unwanted"]);
  });

  void it("are freed by downloads of the upstream whose slots are all held", async () => {
    const sought: (string | undefined)[] = [];
    const slots = makeSlots(9, {
      makeRoom: (upstream) => sought.push(upstream),
    });
    const release = held(slots, from("a", 1));
    const next = slots.wait(from("a", 1));
    assert.deepEqual(sought, ["a"]);
    release();
    (await next)();
  });

  void it("are not awaited by a download that no client has wanted for half a minute", async () => {
    let nowMs = 0;
    const slots = makeSlots(1, { monotonicMs: () => nowMs });
    held(slots, from("a"));
    let isWanted = true;
    const waiting = slots.wait(from("a", 0, () => isWanted));
    nowMs = 29_000;
    isWanted = false;
    nowMs = 60_001;
    await assert.rejects(waiting, REFUSED);
  });

  void it("go to the next download when the signal of a waiting one aborts", async () => {
    const slots = makeSlots(1);
    const release = held(slots, from("a"));
    const abort = new AbortController();
    const leaving = slots.wait(from("a"), abort.signal);
    const staying = slots.wait(from("a"));
    abort.abort(new Error("suspended"));
    await assert.rejects(leaving, /suspended/);
    release();
    (await staying)();
  });

  void it("refuse downloads while a thousand wait for the same upstream, but not for another", async () => {
    const slots = makeSlots(1);
    held(slots, from("a"));
    const waiting = Array.from({ length: 1_000 }, () => slots.wait(from("a")));
    await assert.rejects(slots.wait(from("a")), REFUSED);
    const other = slots.wait(from("b"));
    slots.close();
    for (const one of [...waiting, other]) await assert.rejects(one, REFUSED);
  });

  void it("refuse waiting and new downloads once closed, while one is held", async () => {
    const slots = makeSlots(1);
    const release = held(slots, from("a"));
    const waiting = [slots.wait(from("a")), slots.wait(from("b"))];
    slots.close();
    for (const one of waiting) await assert.rejects(one, REFUSED);
    release();
    assert.equal(slots.take(from("a")), undefined);
    await assert.rejects(slots.wait(from("a")), REFUSED);
  });
});
