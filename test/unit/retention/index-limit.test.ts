import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { IndexLimit } from "../../../src/retention/index-limit.ts";
import type { MetadataIndex } from "../../../src/storage/metadata-index.ts";
import { openSqliteIndex } from "../../../src/storage/local/index/open-sqlite-index.ts";
import { Pace } from "../../../src/retention/victim-search.ts";
import {
  blob,
  keyOf,
  layer,
  manifestOf,
  named,
  tag,
} from "../../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { tempDir } from "../../support/temp-dir.ts";

async function open(test: AfterTest): Promise<MetadataIndex> {
  const { index } = openSqliteIndex({
    path: join(await tempDir(test), "index.sqlite"),
    clock: new FakeClock(),
  });
  releaseAfter(test, () => index.close());
  const manifest = manifestOf(named("manifest"), [layer("layer")]);
  const key = keyOf("quay.io", "real");
  await index.recordBlob(key, manifest);
  await index.recordBlob(key, blob(named("layer"), 10));
  await index.putTag(key, tag("v"), manifest.digest, 1);
  return index;
}

void describe("the bound of the index", () => {
  void it("drops links of repositories without a root, whose number clients choose", async (test) => {
    const index = await open(test);
    const before = await index.usedBytes();
    const name = "a-name-that-a-client-made-up".repeat(4);
    for (let at = 0; at < 3_000; at += 1) {
      await index.link(keyOf("quay.io", `${name}${at}`), named("layer"));
    }
    const full = await index.usedBytes();
    assert.ok(full > before + 500_000, `${full}`);
    const limit = new IndexLimit(index, before + 100_000);
    assert.equal(await limit.enforce(0, new Pace()), 0);
    assert.ok((await index.usedBytes()) <= before + 100_000);
    const real = keyOf("quay.io", "real");
    assert.ok(await index.getTag(real, tag("v")));
    assert.ok(await index.getLinkedBlob(real, named("layer")));
  });

  void it("requests the eviction of some roots if dropping links is not enough", async (test) => {
    const index = await open(test);
    assert.equal(await new IndexLimit(index, 1_000).enforce(0, new Pace()), 16);
    const large = new IndexLimit(index, 1_000);
    assert.equal(await large.enforce(1_000_000_000, new Pace()), 0);
  });
});
