import assert from "node:assert/strict";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { bytesBlob, seededBlob } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const BYTES = seededBlob("two names", 200_000).bytes();
const SHA256 = bytesBlob(BYTES);
const SHA512 = bytesBlob(BYTES, { algorithm: "sha512" });

/** The part after the colon. */
function hexOf({ digest }: { readonly digest: string }): string {
  return digest.slice(digest.indexOf(":") + 1);
}

void describe("a digest of another algorithm (S13)", () => {
  void it("names another blob: verified, stored and fetched under its own digest", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    for (const blob of [SHA256, SHA512]) upstream.content.addBlob("a", blob);
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    for (const [i, blob] of [SHA512, SHA256].entries()) {
      const path = `/v2/a/blobs/${blob.digest}`;
      const first = await mirror.get(path);
      assert.deepEqual([first.status, first.body], [200, BYTES]);
      await mirror.settled();
      const again = await mirror.get(path);
      assert.deepEqual([cacheStatusOf(again), again.body], ["hit", BYTES]);
      assert.equal(upstream.count({ kind: "blob", method: "GET" }), i + 1);
    }
    await access(join(mirror.root, "blobs", "sha512", hexOf(SHA512)));
    await access(join(mirror.root, "blobs", "sha256", hexOf(SHA256)));
  });

  void it("is verified even if the blob cannot be stored", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const wrong = Buffer.from(BYTES);
    wrong[7] = (wrong[7] ?? 0) ^ 1;
    upstream.content.addBlob("a", SHA512);
    upstream.content.addBlob("a", SHA256);
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.loseStorage();
    const path = `/v2/a/blobs/${SHA512.digest}`;
    const got = await mirror.get(path);
    assert.deepEqual([got.status, got.end, got.body], [200, "complete", BYTES]);
    upstream.when({ kind: "blob" }, { status: 200, body: bytesBlob(wrong) });
    assert.notEqual((await mirror.get(path)).end, "complete");
  });

  void it("that does not match the bytes leads to no complete body and no file", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const wrong = Buffer.from(BYTES);
    wrong[7] = (wrong[7] ?? 0) ^ 1;
    upstream.content.addBlob("a", SHA512);
    upstream.when({ kind: "blob" }, { status: 200, body: bytesBlob(wrong) });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const got = await mirror.get(`/v2/a/blobs/${SHA512.digest}`);
    assert.notEqual(got.end, "complete");
    await mirror.settled();
    await assert.rejects(
      access(join(mirror.root, "blobs", "sha512", hexOf(SHA512))),
      { code: "ENOENT" },
    );
  });

  void it("with the digits of the other algorithm is 400 without an upstream request", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addBlob("a", SHA256);
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    assert.equal(
      (await mirror.get(`/v2/a/blobs/${SHA256.digest}`)).status,
      200,
    );
    await mirror.settled();
    upstream.forgetRequests();
    for (const digest of [
      `sha512:${hexOf(SHA256)}`,
      `sha256:${hexOf(SHA512)}`,
      `sha384:${hexOf(SHA256)}`,
      `blake3:${hexOf(SHA256)}`,
    ]) {
      for (const kind of ["blobs", "manifests", "referrers"]) {
        const got = await mirror.get(`/v2/a/${kind}/${digest}`);
        assert.deepEqual(
          [got.status, errorCode(got)],
          kind === "manifests"
            ? [404, "MANIFEST_UNKNOWN"]
            : [400, "DIGEST_INVALID"],
        );
      }
    }
    assert.equal(upstream.count(), 0);
  });
});
