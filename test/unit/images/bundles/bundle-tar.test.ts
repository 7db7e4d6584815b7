import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import type { BundleMember } from "../../../../src/images/bundles/bundle.ts";
import { packBundle } from "../../../../src/images/bundles/export/bundle-tar.ts";
import { readBundle } from "../../../support/bundles.ts";

const MIB = 1024 * 1024;
const INDEX: BundleMember = memberOf("index.json", Buffer.from("{}"));

function memberOf(path: string, bytes: Buffer): BundleMember {
  return {
    path,
    sizeBytes: bytes.length,
    async *open() {
      yield bytes;
    },
  };
}

/** A member of zeros that counts what is read of it. */
function zeros(path: string, sizeBytes: number) {
  const read = { bytes: 0, isOpen: false };
  const member: BundleMember = {
    path,
    sizeBytes,
    async *open() {
      read.isOpen = true;
      try {
        while (read.bytes < sizeBytes) {
          const chunk = Buffer.alloc(Math.min(MIB, sizeBytes - read.bytes));
          read.bytes += chunk.length;
          yield chunk;
        }
      } finally {
        read.isOpen = false;
      }
    },
  };
  return { member, read };
}

void describe("a packed bundle", () => {
  void it("has a PAX header for a size of 8 GiB or more", async () => {
    const { member } = zeros("blobs/sha256/large", 9 * 1024 * MIB);
    const archive = packBundle([member]);
    const [chunk] = (await once(archive, "data")) as [Buffer];
    let head = chunk;
    while (head.length < 1_536) {
      const [more] = (await once(archive, "data")) as [Buffer];
      head = Buffer.concat([head, more]);
    }
    archive.destroy();
    assert.match(head.subarray(512, 1_024).toString(), /^19 size=9663676416\n/);
  });

  void it("reads members at the pace of its reader, and closes them with it", async () => {
    const { member, read } = zeros("blobs/sha256/large", 9 * 1024 * MIB);
    const archive = packBundle([member]);
    await once(archive, "readable");
    archive.read();
    for (let turns = 0; turns < 100; turns++) {
      await new Promise(setImmediate);
    }
    assert(read.isOpen && read.bytes < 32 * MIB, `${read.bytes} bytes`);
    archive.destroy();
    await once(archive, "close");
    await new Promise(setImmediate);
    assert.equal(read.isOpen, false);
  });

  void it("opens no member of an archive that nothing reads", async () => {
    const { member, read } = zeros("blobs/sha256/large", MIB);
    const archive = packBundle([member]);
    archive.destroy();
    await once(archive, "close");
    assert.deepEqual(read, { bytes: 0, isOpen: false });
  });

  void it("fails if a member has another size than it says", async () => {
    for (const sizeBytes of [9, 11]) {
      const wrong = { ...memberOf("oci-layout", Buffer.alloc(10)), sizeBytes };
      await assert.rejects(readBundle(packBundle([wrong, INDEX])));
    }
    const right = memberOf("oci-layout", Buffer.alloc(10));
    const { paths } = await readBundle(packBundle([right, INDEX]));
    assert.deepEqual(paths, ["oci-layout", "index.json"]);
  });
});
