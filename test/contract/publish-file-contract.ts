import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import type { BlobStore, PublishedFile } from "../../src/storage/blob-store.ts";
import type { AfterTest } from "../support/after-test.ts";
import { tempDir } from "../support/temp-dir.ts";
import { content } from "./blob-store-contract.ts";

const MIB = 1024 * 1024;

/**
 * Tests that hold for every blob store that publishes files of other programs.
 *
 * @param make returns an empty store, which is removed after the test
 */
export function publishFileContract(
  name: string,
  make: (test: AfterTest) => Promise<BlobStore>,
): void {
  void describe(`blob store contract of foreign files: ${name}`, () => {
    for (const size of [0, 5_000, 3 * MIB + 17]) {
      void it(`publishes a file of ${size} bytes, again too, and leaves it unchanged`, async (test) => {
        const store = await make(test);
        const folder = await tempDir(test);
        for (const algorithm of ["sha256", "sha512"] as const) {
          const { bytes } = content(`foreign ${algorithm}`, size);
          const digest = digestOf(bytes, algorithm);
          const path = join(folder, algorithm);
          writeFileSync(path, bytes);
          for (let times = 0; times < 2; times += 1) {
            const result = await publish(store, digest, path);
            assert(result.kind === "linked" || result.kind === "copied");
            assert.equal(result.sizeBytes, size);
            assert.deepEqual(await store.read(digest, size), bytes);
          }
        }
      });

      void it(`refuses a file of ${size} bytes with another digest`, async (test) => {
        const store = await make(test);
        const path = join(await tempDir(test), "data");
        writeFileSync(path, content("right", size).bytes);
        const { digest } = content("another", size + 1);
        assert.deepEqual(await publish(store, digest, path), {
          kind: "wrong",
          sizeBytes: size,
        });
        assert.equal(await store.open(digest, size), undefined);
      });
    }

    void it("reports what is not a file as absent", async (test) => {
      const store = await make(test);
      const folder = await tempDir(test);
      const { digest, bytes } = content("elsewhere", 100);
      writeFileSync(join(folder, "file"), bytes);
      symlinkSync(join(folder, "file"), join(folder, "link"));
      mkdirSync(join(folder, "folder"));
      for (const path of ["nothing", "link", "folder", "file/below"]) {
        assert.deepEqual(
          await publish(store, digest, join(folder, path)),
          { kind: "absent" },
          path,
        );
      }
      assert.equal(await store.open(digest, bytes.length), undefined);
    });

    void it("keeps the bytes of a blob that the file does not have", async (test) => {
      const store = await make(test);
      const path = join(await tempDir(test), "data");
      const { digest, bytes } = content("kept", 1_000);
      await store.put(digest, bytes);
      writeFileSync(path, "other bytes");
      assert.equal((await publish(store, digest, path)).kind, "wrong");
      assert.deepEqual(await store.read(digest, bytes.length), bytes);
    });

    void it("stops with the signal's reason", async (test) => {
      const store = await make(test);
      const path = join(await tempDir(test), "data");
      const { digest, bytes } = content("stopped", 3 * MIB);
      writeFileSync(path, bytes);
      const reason = new Error("stopped");
      await assert.rejects(
        publish(store, digest, path, AbortSignal.abort(reason)),
        reason,
      );
      assert.equal(await store.open(digest, bytes.length), undefined);
    });
  });
}

function publish(
  store: BlobStore,
  digest: Digest,
  path: string,
  signal = new AbortController().signal,
): Promise<PublishedFile> {
  assert(store.publishFile !== undefined);
  return store.publishFile(digest, path, signal);
}
