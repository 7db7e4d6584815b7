import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { it } from "node:test";
import { releaseAfter } from "../../support/after-test.ts";
import { tempDir } from "../../support/temp-dir.ts";

void it("a temporary folder goes with all that is in it when its test is over", async (test) => {
  let path = "";
  await test.test("a test that uses one", async (inner) => {
    path = await tempDir(inner);
    await writeFile(join(path, "file"), "x");
    assert.ok(existsSync(path));
  });
  assert.ok(!existsSync(path));
});

void it("what a test holds is released in the reverse order, all of it", async () => {
  const released: string[] = [];
  const hooks: (() => Promise<void> | void)[] = [];
  const test = {
    after: (hook: () => Promise<void> | void): void => {
      hooks.push(hook);
    },
  };
  releaseAfter(test, () => {
    released.push("folder");
  });
  releaseAfter(test, () => {
    released.push("process");
    throw new Error("it does not end");
  });
  await assert.rejects(async () => {
    for (const hook of hooks) await hook();
  }, AggregateError);
  assert.deepEqual(released, ["process", "folder"]);
});
