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

void describe("the metadata of an archive", async () => {
  const hostile = metadata("x", Buffer.from(`${"0".repeat(200_000)}1 `));
  const body = Buffer.alloc(512, "b");
  const end = await tarOf([layoutMember()]);

  const prefixes: readonly (readonly [string, readonly Buffer[]])[] = [
    ["the start", []],
    ["a file", [tarHeader("a", 300), body]],
    ["a file with a size of PAX", [pax("size=300"), tarHeader("a", 0), body]],
    [
      "a file with a global size of PAX",
      [pax("size=300", "g"), tarHeader("a", 0), body],
    ],
    [
      "a size of PAX that a long name replaced",
      [
        pax("size=300"),
        metadata("L", Buffer.from("long\0")),
        tarHeader("a", 0),
      ],
    ],
    [
      "a size of PAX that counts for one file",
      [pax("size=300"), tarHeader("a", 0), body, tarHeader("b", 0)],
    ],
    ["a file with a binary size", [tarHeader("a", 300, "0", true), body]],
    ["a folder that has a size", [tarHeader("a/", 300, "5")]],
    ["an empty PAX header", [metadata("x", Buffer.alloc(0))]],
    ["a file named like a folder", [tarHeader("a/", 300), body]],
  ];
  for (const [what, prefix] of prefixes) {
    void it(`is refused after ${what} if it is malformed`, async () => {
      const whole = Buffer.concat([...prefix, end]);
      // The library reads the same members, so that nothing hides from the check.
      assert((await readAll(inChunks(whole, 700))).includes("oci-layout"));
      const bytes = Buffer.concat([...prefix, hostile, end]);
      await assert.rejects(readAll(inChunks(bytes, 700)), {
        detail:
          "got a malformed PAX header before a member; expected records such as '9 path=x'",
      });
    });
  }

  void it("is refused if it is larger than names and attributes need", async () => {
    for (const type of ["x", "g", "L", "K"]) {
      const large = metadata(type, Buffer.alloc(1024 * 1024 + 1, "0"));
      await assert.rejects(readAll(inChunks(Buffer.concat([large, end]))), {
        detail:
          "got a header of 1048577 bytes before a member; expected at most 1048576",
      });
    }
  });

  const malformed = ["11 path=x\n", "9 path=xy", "9 =pathx\n", "12 size=-12\n"];
  for (const record of malformed) {
    void it(`is refused for ${JSON.stringify(record)}`, async () => {
      const header = metadata("x", Buffer.from(record));
      await assert.rejects(
        readAll(inChunks(Buffer.concat([header, end]))),
        /refused/,
      );
    });
  }
});

/** Returns a PAX header with one record, and its padding. */
function pax(record: string, type = "x"): Buffer {
  return metadata(type, Buffer.from(`${record.length + 4} ${record}\n`));
}

function metadata(type: string, content: Buffer): Buffer {
  const padding = Buffer.alloc(-content.length & 511);
  return Buffer.concat([
    tarHeader("metadata", content.length, type),
    content,
    padding,
  ]);
}

function tarHeader(
  name: string,
  sizeBytes: number,
  type = "0",
  isBinary = false,
): Buffer {
  const block = Buffer.alloc(512);
  block.write(name);
  block.write("0000644", 100);
  if (isBinary) {
    block.writeUInt8(0x80, 124);
    block.writeUInt32BE(sizeBytes, 132);
  } else block.write(sizeBytes.toString(8).padStart(11, "0"), 124);
  block.write(type, 156);
  block.write("ustar\x0000", 257);
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

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
