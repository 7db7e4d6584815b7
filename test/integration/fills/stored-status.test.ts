import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { seededBlob } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const BLOB = seededBlob("stored status", 300_000);
const PATH = `/v2/x/blobs/${BLOB.digest}`;

/** Issue 10, item 10: no stored descriptor names the blob. */
void describe("the Cache-Status of a blob whose size no descriptor states", () => {
  for (const [what, framing] of [
    ["with a length", "content-length"],
    ["without a length", "chunked"],
  ] as const) {
    void it(`states that the blob is stored, ${what}`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addBlob("x", BLOB);
      upstream.when({ kind: "blob" }, { framing });
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      const got = await mirror.get(PATH);
      assert.equal(got.sha256, BLOB.digest);
      assert.equal(cacheStatusOf(got), "fwd=miss; fwd-status=200; stored");
      await mirror.settled();
      assert.deepEqual(await readdir(join(mirror.root, "partial")), [
        "boot-id",
      ]);
      upstream.forgetRequests();
      await mirror.get(PATH);
      assert.equal(upstream.count(), 0);
    });
  }
});
