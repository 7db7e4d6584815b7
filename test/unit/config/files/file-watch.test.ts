import assert from "node:assert/strict";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { watchFiles } from "../../../../src/config/files/file-watch.ts";
import { releaseAfter } from "../../../support/after-test.ts";
import { Barrier } from "../../../support/barrier.ts";
import { tempDir } from "../../../support/temp-dir.ts";

void describe("a watch of files", () => {
  void it("reports each change once, also of a replaced file", async (test) => {
    const dir = await tempDir(test);
    const [one, two] = [join(dir, "one"), join(dir, "two")];
    await writeFile(one, "a");
    let changes = 0;
    const watch = await watchFiles([one, two], () => {
      changes++;
      return Promise.resolve();
    });
    releaseAfter(test, () => watch.close());
    await watch.check();
    assert.equal(changes, 0);
    await writeFile(two, "b");
    await watch.check();
    await watch.check();
    assert.equal(changes, 1);
    await writeFile(join(dir, "new"), "a");
    await rename(join(dir, "new"), one);
    await watch.check();
    assert.equal(changes, 2);
    await writeFile(two, "closed");
    watch.close();
    await watch.check();
    assert.equal(changes, 2);
  });

  void it("checks one file at a time, and once more for all calls during a hanging check", async (test) => {
    const barrier = new Barrier();
    const checked: string[] = [];
    let mark = "before";
    const marks: string[] = [];
    const watch = await watchFiles(
      ["one", "two"],
      () => {
        marks.push(mark);
        return Promise.resolve();
      },
      async (path) => {
        checked.push(path);
        const seen = mark;
        if (checked.length === 3) await barrier.pass();
        return seen;
      },
    );
    releaseAfter(test, () => watch.close());
    const hanging = watch.check();
    await barrier.arrived(1);
    const calls = Array.from({ length: 100 }, () => watch.check());
    mark = "after";
    assert.deepEqual(checked, ["one", "two", "one"]);
    barrier.release();
    await Promise.all([hanging, ...calls]);
    assert.equal(checked.length, 6);
    assert.deepEqual(marks.at(-1), "after");
  });
});
