import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseImageText } from "../../../src/images/image-reference.ts";
import { createPurge } from "../../../src/images/purge-image.ts";
import { type Digest, parseDigest } from "../../../src/oci/digest.ts";
import { parseTag, type Tag } from "../../../src/oci/reference.ts";
import type { TagIndex } from "../../../src/storage/tag-index.ts";

const WANTED = digestOf("a");
const OTHER = digestOf("b");
const TAGS = Array.from({ length: 2_500 }, (_, at) =>
  tagOf(`v${String(at).padStart(4, "0")}`),
);
const POINTING = new Set([0, 999, 1_000, 2_499].map((at) => TAGS[at]));

function digestOf(digit: string): Digest {
  const digest = parseDigest(`sha256:${digit.repeat(64)}`);
  assert(digest !== undefined);
  return digest;
}

function tagOf(text: string): Tag {
  const tag = parseTag(text);
  assert(tag !== undefined);
  return tag;
}

function indexOf(onRead: () => void): Pick<TagIndex, "listTags" | "getTag"> {
  return {
    listTags: (_key, limit, last) => {
      const from = last === undefined ? 0 : TAGS.indexOf(tagOf(last)) + 1;
      return Promise.resolve(TAGS.slice(from, from + limit));
    },
    getTag: (_key, tag) => {
      onRead();
      return Promise.resolve({
        digest: POINTING.has(tag) ? WANTED : OTHER,
        sizeBytes: 1,
        mediaType: "application/json",
        fetchedAtMs: 1,
        verifiedAtMs: 1,
        goneAtMs: undefined,
        isPinned: false,
      });
    },
  };
}

void describe("a purge by digest", () => {
  const image = parseImageText(`a.example/app@${WANTED}`);
  assert(image !== undefined);

  void it("removes the digest and every tag that points to it", async () => {
    const purge = createPurge(
      { remove: () => Promise.resolve(1) },
      indexOf(() => undefined),
    );
    assert.deepEqual(await purge(image), [
      `a.example/app@${WANTED}`,
      ...[...POINTING].map((tag) => `a.example/app:${tag}`),
    ]);
  });

  void it("lets other requests run while it reads many tags", async () => {
    let reads = 0;
    let readsBefore: number | undefined;
    const index = indexOf(() => {
      reads += 1;
      if (reads > 1) return;
      setImmediate(() => {
        readsBefore = reads;
      });
      // As slow as many rows.
      const endMs = performance.now() + 10;
      while (performance.now() < endMs);
    });
    await createPurge({ remove: () => Promise.resolve(1) }, index)(image);
    assert.equal(readsBefore, 1);
    assert.equal(reads, TAGS.length);
  });
});
