import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { readMemberName } from "../../../../src/images/bundles/import/member-name.ts";
import { readArchive } from "../../../../src/images/bundles/import/read-archive.ts";
import {
  inChunks,
  layoutMember,
  tarOf,
} from "../../../support/bundle-archive.ts";

const MIB = 1024 * 1024;

async function readAll(
  source: AsyncIterable<Uint8Array>,
  maxMembers?: number,
): Promise<string[]> {
  const names: string[] = [];
  for await (const { name, body } of readArchive(
    source,
    maxMembers === undefined ? {} : { maxMembers },
  )) {
    names.push(name);
    for await (const _ of body);
  }
  return names;
}

void describe("an archive", () => {
  void it("has a bounded number of members", async () => {
    const members = Array.from({ length: 4 }, (_, at) => ({
      name: `file-${at}`,
      bytes: Buffer.from("x"),
    }));
    const bytes = await tarOf(members);
    assert.equal((await readAll(inChunks(bytes), 4)).length, 4);
    await assert.rejects(readAll(inChunks(bytes), 3), {
      detail: "got more than 3 members; expected fewer",
    });
  });

  void it("ends after its end: more zeros are not read", async () => {
    const bytes = await tarOf([layoutMember()]);
    let sentBytes = 0;
    async function* endless() {
      yield bytes;
      for (;;) {
        sentBytes += MIB;
        yield Buffer.alloc(MIB);
      }
    }
    await assert.rejects(readAll(endless()), /refused/);
    assert(sentBytes <= 40 * MIB, `got ${sentBytes}`);
  });

  void it("that expands to far more bytes than its members have is not read to its end", async () => {
    const bytes = Buffer.concat([
      await tarOf([layoutMember()]),
      Buffer.alloc(100 * MIB),
    ]);
    for (const compressed of [gzipSync(bytes), zstdCompressSync(bytes)]) {
      await assert.rejects(readAll(inChunks(compressed)), (error) => {
        assert.match(
          String(Reflect.get(error as object, "detail")),
          /after the end/,
        );
        return true;
      });
    }
  });

  void it("is read at the pace of its reader", async () => {
    const members = [{ name: "large", bytes: Buffer.alloc(64 * MIB) }];
    const bytes = await tarOf(members);
    let sentBytes = 0;
    async function* counted() {
      for await (const chunk of inChunks(bytes, MIB)) {
        sentBytes += chunk.length;
        yield chunk;
      }
    }
    const archive = readArchive(counted());
    const { value } = await archive.next();
    assert(value !== undefined);
    const body = value.body[Symbol.asyncIterator]();
    await body.next();
    for (let turn = 0; turn < 1_000; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert(sentBytes < 8 * MIB, `got ${sentBytes}`);
    await archive.return(undefined);
    for (let turn = 0; turn < 100; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert(sentBytes < 8 * MIB, `got ${sentBytes} after the end`);
  });

  void it("passes errors of its source on unchanged", async () => {
    const bytes = await tarOf([layoutMember()]);
    const gone = new Error("the client is gone");
    for (const content of [bytes, gzipSync(bytes), zstdCompressSync(bytes)]) {
      async function* failing() {
        yield content.subarray(0, content.length - 20);
        throw gone;
      }
      await assert.rejects(readAll(failing()), gone);
    }
  });
});

void describe("the name of a member", () => {
  const hex = "0".repeat(64);
  const cases: readonly (readonly [string, string])[] = [
    [`blobs/sha256/${hex}`, "blob"],
    [`./blobs/sha256/${hex}`, "blob"],
    [`blobs/sha512/${hex}${hex}`, "blob"],
    [`blobs//sha256/./${hex}`, "blob"],
    [`blobs/sha512/${hex}`, "other"],
    [`blobs/sha256/${"A".repeat(64)}`, "other"],
    [`blobs/sha256/${hex}/x`, "other"],
    [`x/blobs/sha256/${hex}`, "other"],
    ["oci-layout", "layout"],
    ["index.json", "index"],
    ["x/index.json", "other"],
    ["manifest.json", "other"],
    [`${hex}.json`, "docker"],
    [`${hex}.tar`, "docker"],
    [`${hex}/layer.tar`, "docker"],
    [`${hex}/VERSION`, "docker"],
    ["/oci-layout", "refused"],
    ["../oci-layout", "refused"],
    ["blobs/..", "refused"],
    ["a/../oci-layout", "refused"],
    ["blobs\\sha256", "refused"],
    ["a\u0000b", "refused"],
    ["a".repeat(513), "refused"],
    ["..a", "other"],
  ];
  for (const [text, want] of cases) {
    void it(`${JSON.stringify(text.slice(0, 40))} is ${want}`, () => {
      assert.equal(readMemberName(text).kind, want);
    });
  }
});
