import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { IndexError } from "../../../../../src/storage/metadata-index.ts";
import type { IndexCursor } from "../../../../../src/storage/index-cursor.ts";
import { openSqliteIndex } from "../../../../../src/storage/local/index/open-sqlite-index.ts";
import {
  keyOf,
  layer,
  manifestOf,
  named,
} from "../../../../contract/metadata-index-contract.ts";
import {
  type AfterTest,
  releaseAfter,
} from "../../../../support/after-test.ts";
import { FakeClock } from "../../../../support/fake-clock.ts";
import { tempDir } from "../../../../support/temp-dir.ts";

async function open(test: AfterTest) {
  const { index } = openSqliteIndex({
    path: join(await tempDir(test), "index.sqlite"),
    clock: new FakeClock(),
  });
  releaseAfter(test, () => index.close());
  return index;
}

void describe("lists of roots in SQLite", () => {
  void it("end a page of images after a thousand repositories without images", async (test) => {
    const index = await open(test);
    const manifest = manifestOf(named("manifest"), [layer("a")]);
    await index.recordBlob(keyOf("a.example", "first"), manifest);
    await index.recordBlob(keyOf("a.example", "first"), {
      digest: named("a"),
      sizeBytes: 10,
      storedAtMs: 1,
    });
    for (let n = 0; n < 1_500; n += 1) {
      await index.link(keyOf("m.example", `gone/${n}`), named("a"));
    }
    await index.recordBlob(keyOf("z.example", "last"), manifest);
    const keysOf = async (after: IndexCursor | undefined) => {
      const { images, next } = await index.listImages(10, after);
      return { names: images.map(({ key }) => key.repository), next };
    };
    const first = await keysOf(undefined);
    assert.deepEqual(first.names, ["first"]);
    assert.notEqual(first.next, undefined);
    const last = await keysOf(first.next);
    assert.deepEqual(last, { names: ["last"], next: undefined });
  });

  void it("reject a cursor that the index did not return", async (test) => {
    const index = await open(test);
    await assert.rejects(
      index.listOldestRoots(1, "not a cursor" as IndexCursor),
      IndexError,
    );
  });
});
