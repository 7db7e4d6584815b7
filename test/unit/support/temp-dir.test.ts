import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { it } from "node:test";
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
