import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, it } from "node:test";
import { StorageError } from "../../../../../src/storage/blob-store.ts";
import { StorageProbe } from "../../../../../src/storage/local/root/storage-probe.ts";

void describe("the storage probe", () => {
  void it("runs one check at a time, and does not wait for a slow disk", async () => {
    let asked = 0;
    let answer = Promise.withResolvers<void>();
    const probe = new StorageProbe(
      {
        probe: () => {
          asked += 1;
          return answer.promise;
        },
      },
      1,
    );
    for (let i = 0; i < 3; i += 1) {
      await assert.rejects(probe.probe(), { code: "ETIMEDOUT" });
    }
    assert.equal(asked, 1);
    answer.resolve();
    await nextTurn();
    await probe.probe();
    assert.equal(asked, 2);
    answer = Promise.withResolvers();
    const failed = probe.probe();
    answer.reject(new StorageError("write", "EROFS"));
    await assert.rejects(failed, { code: "EROFS" });
    assert.equal(asked, 3);
  });
});
