import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { HotManifests } from "../../../src/storage/hot-manifests.ts";
import { digestOf } from "../../../src/oci/digest.ts";

void describe("hot manifests", () => {
  void it("keep the most recently used ones within a limit in bytes", () => {
    const hot = new HotManifests(10_000);
    const digests = Array.from({ length: 4 }, (_, i) => digestOf(Buffer.of(i)));
    const [first, second, third, fourth] = digests;
    assert(first && second && third && fourth);
    const bytes = Buffer.alloc(2_500, 7);
    for (const digest of [first, second, third]) {
      hot.set(digest, bytes);
    }
    assert.deepEqual(hot.get(first), bytes);
    hot.set(fourth, bytes);
    assert.deepEqual(
      digests.map((digest) => hot.get(digest) !== undefined),
      [true, false, true, true],
    );
    assert(hot.sizeBytes > 3 * 2_500 && hot.sizeBytes <= 10_000);
    hot.delete(third);
    assert.equal(hot.get(third), undefined);
  });

  void it("keep no manifest that is larger than the limit", () => {
    const hot = new HotManifests(1_000);
    const digest = digestOf(Buffer.of(1));
    hot.set(digest, Buffer.alloc(1_000));
    assert.equal(hot.get(digest), undefined);
    assert.equal(hot.sizeBytes, 0);
  });

  void it("keep no more memory than they count for", () => {
    const hot = new HotManifests();
    const large = Buffer.alloc(1024 * 1024);
    const digest = digestOf(Buffer.of(2));
    hot.set(digest, large.subarray(5, 10));
    assert.equal(hot.get(digest)?.buffer.byteLength, 5);
  });
});
