import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Verification } from "../../../src/storage/blob-verifier.ts";
import type { BlobRow } from "../../../src/storage/blob-index.ts";
import { StoredReads } from "../../../src/bodies/stored-reads.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { FakeClock } from "../../support/fake-clock.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

function rowOf(name: string, verifiedAtMs = 0): BlobRow {
  return {
    digest: digestOf(Buffer.from(name)),
    sizeBytes: 1,
    mediaType: undefined,
    storedAtMs: 1,
    verifiedAtMs,
  };
}

interface Scene {
  readonly reads: StoredReads;
  readonly clock: FakeClock;
  readonly later: BlobRow[];
}

function makeScene(ended: Verification = "right"): Scene {
  const clock = new FakeClock(100 * DAY_MS);
  const later: BlobRow[] = [];
  const reads = new StoredReads({
    clock,
    verifyAfterMs: () => 7 * DAY_MS,
    verifier: {
      verify: () => Promise.resolve(ended),
      verifyLater: (row) => later.push(row),
    },
  });
  return { reads, clock, later };
}

void describe("reads of stored blobs", () => {
  void it("are verified again after a verification without a result", async () => {
    const { reads, clock } = makeScene("unknown");
    const row = rowOf("a");
    reads.noteReceived("one", row.digest, 0);
    for (let i = 0; i < 3; i++) {
      assert.equal(
        await reads.verifyIfDoubtful("one", row, undefined),
        "unknown",
      );
      reads.noteReceived("one", row.digest, clock.monotonicMs());
    }
  });

  void it("are remembered for 20 000 pairs of client and blob", async () => {
    const { reads } = makeScene();
    const row = rowOf("a");
    for (let i = 0; i <= 20_000; i++) reads.noteReceived(`${i}`, row.digest, 0);
    assert.equal(reads.verifyIfDoubtful("0", row, undefined), undefined);
    assert.equal(await reads.verifyIfDoubtful("1", row, undefined), "right");
  });

  void it("start a background verification if the last one is old or in the future", () => {
    const { reads, clock, later } = makeScene();
    const nowMs = clock.nowMs();
    const old = rowOf("old", nowMs - 7 * DAY_MS);
    const ahead = rowOf("ahead", nowMs + DAY_MS);
    reads.noteHit(rowOf("fresh", nowMs - 7 * DAY_MS + 1), undefined);
    reads.noteHit(rowOf("a little ahead", nowMs + 1_000), undefined);
    reads.noteHit(old, undefined);
    reads.noteHit(ahead, undefined);
    assert.deepEqual(later, [old, ahead]);
  });

  void it("of a file that another process changed wait for one verification", async () => {
    const { reads, clock, later } = makeScene();
    const nowMs = clock.nowMs();
    const row = rowOf("a", nowMs - 5_000);
    assert.equal(reads.verifyIfDoubtful("one", row, nowMs - 5_000), undefined);
    // The modification time may be that of a file server's clock.
    assert.equal(reads.verifyIfDoubtful("one", row, nowMs + 1), undefined);
    assert.equal(
      await reads.verifyIfDoubtful("one", row, nowMs - 4_000),
      "right",
    );
    assert.equal(reads.verifyIfDoubtful("one", row, nowMs - 4_000), undefined);
    reads.noteHit(row, nowMs - 4_000);
    assert.deepEqual(later, []);
    reads.noteHit(row, nowMs - 3_000);
    assert.deepEqual(later, [row]);
  });

  void it("are cut if the bytes are wrong, and none starts while the file cannot be removed", async () => {
    const { reads } = makeScene();
    const row = rowOf("a");
    const broken: string[] = [];
    reads.follow(row.digest, { break: () => broken.push("one") });
    const end = reads.follow(row.digest, { break: () => broken.push("two") });
    reads.follow(rowOf("b").digest, { break: () => broken.push("other") });
    end();
    await reads.dropWrong(row, () => Promise.resolve(false));
    assert.deepEqual(broken, ["one"]);
    assert.equal(reads.isWrong(row), true);
    assert.equal(reads.isWrong({ ...row, storedAtMs: 2 }), false);
    await reads.dropWrong(row, () => Promise.resolve(true));
    assert.equal(reads.isWrong(row), false);
  });
});
