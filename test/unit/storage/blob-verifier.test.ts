import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { BlobVerdict } from "../../../src/storage/blob-store.ts";
import {
  BlobVerifier,
  type Verification,
} from "../../../src/storage/blob-verifier.ts";
import type { BlobRow } from "../../../src/storage/blob-index.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { FakeClock } from "../../support/fake-clock.ts";

function rowOf(name: string): BlobRow {
  return {
    digest: digestOf(Buffer.from(name)),
    sizeBytes: 1,
    mediaType: undefined,
    storedAtMs: 1,
    verifiedAtMs: 1,
  };
}

interface Scene {
  readonly started: Digest[];
  readonly verified: Digest[];
  readonly dropped: [Digest, string][];
  /** Makes every read of the index and every removal fail. */
  isBroken: boolean;
  readonly outcomes: Verification[];
  storedAtMs: number;
  /** Ends the running verification of this blob. */
  judge(row: BlobRow, verdict: BlobVerdict | undefined): Promise<void>;
  readonly running: number;
  readonly verifier: BlobVerifier;
}

/** Creates a verifier whose store answers when the test orders it. */
function makeScene(): Scene {
  const reading = new Map<Digest, (verdict: BlobVerdict | undefined) => void>();
  const scene: Scene = {
    started: [],
    verified: [],
    dropped: [],
    isBroken: false,
    outcomes: [],
    storedAtMs: 1,
    async judge(row: BlobRow, verdict: BlobVerdict | undefined) {
      const end = reading.get(row.digest);
      assert.ok(end, "it is not being read");
      reading.delete(row.digest);
      end(verdict);
      for (let turns = 0; turns < 5; turns++) await nextTurn();
    },
    get running() {
      return reading.size;
    },
    verifier: new BlobVerifier({
      clock: new FakeClock(5),
      blobs: {
        verify: (digest, _sizeBytes, signal) => {
          scene.started.push(digest);
          return new Promise((resolve, reject) => {
            reading.set(digest, resolve);
            signal.addEventListener("abort", () =>
              reject(signal.reason as Error),
            );
          });
        },
      },
      index: {
        getBlob: (digest) =>
          scene.isBroken
            ? Promise.reject(new Error("the index is broken"))
            : Promise.resolve({
                ...rowOf(""),
                digest,
                storedAtMs: scene.storedAtMs,
              }),
        noteVerified: (digests) => {
          scene.verified.push(...digests);
          return Promise.resolve();
        },
      },
      drop: ({ digest }, verdict) => {
        scene.dropped.push([digest, verdict]);
        return scene.isBroken
          ? Promise.reject(new Error("the disk is read-only"))
          : Promise.resolve();
      },
      onVerified: (outcome) => scene.outcomes.push(outcome),
    }),
  };
  return scene;
}

void describe("the verifier of stored blobs", () => {
  void it("reads a blob once for all waiting callers", async () => {
    const scene = makeScene();
    const row = rowOf("a");
    const waiting = Array.from({ length: 100 }, () =>
      scene.verifier.verify(row),
    );
    scene.verifier.verifyLater(row);
    await scene.judge(row, "right");
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set(["right"]));
    assert.deepEqual(scene.started, [row.digest]);
    assert.deepEqual(scene.verified, [row.digest]);
    assert.deepEqual(scene.outcomes, ["right"]);
  });

  void it("reads one blob at a time in the background, after those that a client waits for", async () => {
    const scene = makeScene();
    const rows = ["a", "b", "c"].map(rowOf);
    for (const row of rows) scene.verifier.verifyLater(row);
    const [a, b, c] = rows;
    assert.ok(a && b && c);
    assert.deepEqual(scene.started, [a.digest]);
    const waiting = scene.verifier.verify(c);
    assert.deepEqual(scene.started, [a.digest, c.digest]);
    await scene.judge(c, "right");
    assert.equal(await waiting, "right");
    assert.equal(scene.running, 1);
    await scene.judge(a, "right");
    assert.deepEqual(scene.started, [a.digest, c.digest, b.digest]);
    await scene.verifier.stop();
  });

  void it("reads two blobs at a time for waiting clients", async () => {
    const scene = makeScene();
    const rows = Array.from({ length: 6 }, (_, i) => rowOf(`${i}`));
    const waiting = rows.map((row) => scene.verifier.verify(row));
    assert.equal(scene.running, 2);
    for (const row of rows) await scene.judge(row, "right");
    assert.equal((await Promise.all(waiting)).length, 6);
  });

  void it("queues at most 1 000 blobs in the background", async () => {
    const scene = makeScene();
    const rows = Array.from({ length: 1_200 }, (_, i) => rowOf(`${i}`));
    for (const row of rows) scene.verifier.verifyLater(row);
    for (const row of rows.slice(0, 1_001)) await scene.judge(row, "right");
    assert.equal(scene.running, 0);
    assert.equal(scene.started.length, 1_001);
  });

  void it("queues at most 1 000 blobs for waiting clients", async () => {
    const scene = makeScene();
    const rows = Array.from({ length: 1_200 }, (_, i) => rowOf(`${i}`));
    const waiting = rows.map((row) => scene.verifier.verify(row));
    for (const row of rows.slice(0, 1_002)) await scene.judge(row, "right");
    const ended = await Promise.all(waiting);
    assert.equal(ended.filter((one) => one === "right").length, 1_002);
    assert.equal(ended.filter((one) => one === "unknown").length, 198);
  });

  void it("drops wrong and unreadable blobs, but not one that was fetched again meanwhile", async () => {
    for (const verdict of ["wrong", "unreadable"] as const) {
      const scene = makeScene();
      const row = rowOf("a");
      const waiting = scene.verifier.verify(row);
      await scene.judge(row, verdict);
      assert.equal(await waiting, "wrong");
      assert.deepEqual(scene.dropped, [[row.digest, verdict]]);
      scene.storedAtMs = 2;
      const again = scene.verifier.verify(row);
      await scene.judge(row, verdict);
      assert.equal(await again, "wrong");
      assert.equal(scene.dropped.length, 1);
    }
  });

  void it("reports wrong bytes as wrong even if they can't be dropped", async () => {
    const scene = makeScene();
    scene.isBroken = true;
    const row = rowOf("a");
    const waiting = scene.verifier.verify(row);
    await scene.judge(row, "wrong");
    assert.equal(await waiting, "wrong");
    assert.deepEqual(scene.dropped, [[row.digest, "wrong"]]);
  });

  void it("reports an absent blob, and every blob after a stop, as unknown", async () => {
    const scene = makeScene();
    const row = rowOf("a");
    const gone = scene.verifier.verify(row);
    await scene.judge(row, undefined);
    assert.equal(await gone, "unknown");
    const rows = Array.from({ length: 6 }, (_, i) => rowOf(`${i}`));
    const waiting = rows.map((one) => scene.verifier.verify(one));
    await scene.verifier.stop();
    waiting.push(scene.verifier.verify(row));
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set(["unknown"]));
    assert.equal(scene.started.length, 3);
  });
});
