import assert from "node:assert/strict";
import { constants } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { nodeFileSystem } from "../../../../../src/storage/local/root/file-system.ts";
import { guardFileSystem } from "../../../../../src/storage/local/root/guarded-file-system.ts";
import { HungCalls } from "../../../../../src/storage/local/root/hung-calls.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

const HERE = { isAway: false, assertHere: () => Promise.resolve() };

void describe("a call that the disk does not answer", () => {
  void it("fails with ETIMEDOUT, and a descriptor that it opens later is closed", async (test) => {
    const path = join(await tempDir(test), "file");
    const fileSystem = nodeFileSystem;
    const answer = Promise.withResolvers<void>();
    const closed = Promise.withResolvers<number>();
    const guarded = guardFileSystem(
      {
        ...fileSystem,
        open: async (...input) => {
          await answer.promise;
          return fileSystem.open(...input);
        },
        close: async (fd) => {
          await fileSystem.close(fd);
          closed.resolve(fd);
        },
      },
      HERE,
      new HungCalls(20, 5),
    );
    const flags = constants.O_RDWR | constants.O_CREAT;
    await assert.rejects(guarded.open(path, flags), { code: "ETIMEDOUT" });
    answer.resolve();
    assert.equal(typeof (await closed.promise), "number");
  });

  void it("changes nothing if it timed out before it started", async (test) => {
    const path = join(await tempDir(test), "folder");
    const answer = Promise.withResolvers<void>();
    const guarded = guardFileSystem(
      nodeFileSystem,
      { ...HERE, assertHere: () => answer.promise },
      new HungCalls(20, 5),
    );
    await assert.rejects(guarded.makeFolder(path), { code: "ETIMEDOUT" });
    answer.resolve();
    await assert.rejects(nodeFileSystem.statPath(path), { code: "ENOENT" });
  });

  void it("returns its own result or error if it is quick", async () => {
    const hung = new HungCalls(20, 5);
    assert.equal(await hung.run(() => Promise.resolve(1)), 1);
    const fault = Object.assign(new Error("EIO"), { code: "EIO" });
    await assert.rejects(
      hung.run(() => Promise.reject(fault)),
      fault,
    );
  });
});
