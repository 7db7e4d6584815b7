import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { IndexRestoringError } from "../../../../../src/storage/metadata-index.ts";
import { HostedGate } from "../../../../../src/storage/local/durable/hosted-gate.ts";

/** Returns whether the promise is settled after some turns of the event loop. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let isDone = false;
  promise.then(
    () => (isDone = true),
    () => (isDone = true),
  );
  for (let turn = 0; turn < 5; turn += 1) await nextTurn();
  return isDone;
}

void describe("requests while hosted lines are replayed", () => {
  void it("do not wait if nothing is replayed", async () => {
    const gate = new HostedGate();
    assert.equal(await gate.pass("local", false), false);
    await gate.passHosted();
    await gate.passAny();
  });

  void it("wait for the end in a hosted registry, whether found or not", async () => {
    const gate = new HostedGate();
    gate.begin(["local", "team"], true);
    const waits = [
      gate.pass("local", true),
      gate.pass("team", false),
      gate.passHosted(),
      gate.passAny(),
    ];
    for (const wait of waits) assert.equal(await isSettled(wait), false);
    assert.equal(await gate.pass("docker.io", true), false);
    assert.equal(await gate.pass("docker.io", false), false);
    gate.end();
    assert.deepEqual(await Promise.all(waits), [
      true,
      true,
      undefined,
      undefined,
    ]);
  });

  void it("wait for the journal if it may name the registry", async () => {
    const gate = new HostedGate();
    gate.begin([], false);
    const hosted = gate.pass("local", false);
    const mirrored = gate.pass("docker.io", false);
    const any = gate.passAny();
    assert.equal(await gate.pass("docker.io", true), false);
    assert.equal(await isSettled(mirrored), false);
    gate.expect(["local"]);
    assert.equal(await mirrored, true);
    assert.equal(await isSettled(hosted), false);
    assert.equal(await isSettled(any), false);
    gate.end();
    assert.equal(await hosted, true);
    await any;
  });

  void it("do not wait for a list of all repositories if none is hosted", async () => {
    const gate = new HostedGate();
    gate.begin([], false);
    const any = gate.passAny();
    gate.expect([]);
    await any;
    assert.equal(gate.isOn, true);
  });

  void it("wait for the replacement of an index that is replaced meanwhile", async () => {
    const gate = new HostedGate();
    gate.begin(["local"], true);
    const wait = gate.passHosted();
    gate.end();
    gate.begin(["local"], true);
    assert.equal(await isSettled(wait), false);
    gate.end();
    await wait;
  });

  void it("fail with IndexRestoringError after a bounded time", async () => {
    const gate = new HostedGate(5);
    gate.begin(["local"], true);
    await assert.rejects(gate.pass("local", true), IndexRestoringError);
    await assert.rejects(gate.passHosted(), IndexRestoringError);
    await assert.rejects(gate.passAny(), IndexRestoringError);
  });
});
