import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ChildMirror } from "../../support/child-mirror.ts";
import { tempDir } from "../../support/temp-dir.ts";

/** Used by an operator's order, or by a key that is rarely set. */
const ON_DEMAND = ["croner", "modern-tar", "pino-pretty", "re2js", "tldts"];

interface Coverage {
  readonly result: readonly { readonly url: string }[];
}

/** Returns the packages whose modules the processes loaded. */
async function loadedPackages(folder: string): Promise<ReadonlySet<string>> {
  const packages = new Set<string>();
  for (const file of await readdir(folder)) {
    const text = await readFile(join(folder, file), "utf8");
    for (const { url } of (JSON.parse(text) as Coverage).result) {
      const name = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1];
      if (name !== undefined) packages.add(name);
    }
  }
  return packages;
}

void describe("an idle mirror", () => {
  void it("has loaded no library that only an operator's order needs", async (test) => {
    const folder = await tempDir(test);
    const mirror = await ChildMirror.start(test, {
      env: { NODE_V8_COVERAGE: folder },
    });
    await mirror.terminate();
    const loaded = await loadedPackages(folder);
    assert.ok(loaded.has("fastify"));
    assert.deepEqual(
      ON_DEMAND.filter((name) => loaded.has(name)),
      [],
    );
  });
});
