import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type BlobReader,
  type BlobStore,
  type BlobWriter,
  parseUploadId,
  type UploadTarget,
} from "../../src/storage/blob-store.ts";
import {
  type Digest,
  type DigestAlgorithm,
  digestOf,
} from "../../src/oci/digest.ts";
import { seededBytes } from "../support/seeded-bytes.ts";
import type { AfterTest } from "../support/after-test.ts";

const MIB = 1024 * 1024;

/**
 * Tests that hold for every blob store.
 *
 * @param make returns an empty store, which is removed after the test
 */
export function blobStoreContract(
  name: string,
  make: (test: AfterTest) => Promise<BlobStore>,
): void {
  void describe(`blob store contract: ${name}`, () => {
    void it("reports an unpublished blob as absent", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("absent", 10);
      assert.equal(await store.open(digest, bytes.length), undefined);
      assert.equal(await store.read(digest, bytes.length), undefined);
      await store.remove(digest);
    });

    void it("publishes small bytes, reads them and removes them", async (test) => {
      const store = await make(test);
      for (const algorithm of ["sha256", "sha512"] as const) {
        const bytes = seededBytes("small", 5_000).read(0, 5_000);
        const digest = digestOf(bytes, algorithm);
        await store.put(digest, bytes);
        await store.put(digest, bytes);
        assert.deepEqual(await store.read(digest, bytes.length), bytes);
        assert.equal(await store.read(digest, bytes.length - 1), undefined);
        assert.equal(await store.open(digest, bytes.length + 1), undefined);
        await store.remove(digest);
        assert.equal(await store.read(digest, bytes.length), undefined);
      }
    });

    void it("keeps the empty blob", async (test) => {
      const store = await make(test);
      const empty = Buffer.alloc(0);
      await store.put(digestOf(empty), empty);
      assert.deepEqual(await store.read(digestOf(empty), 0), empty);
      const writer = await store.beginWrite({
        kind: "fill",
        digest: digestOf(empty),
        expectedBytes: 0,
      });
      assert.equal(await writer.hash.digest(), digestOf(empty));
      await writer.append([]);
      await writer.commit(digestOf(empty));
      const reader = await store.open(digestOf(empty), 0);
      assert.equal(await reader?.read(Buffer.alloc(1), 0), 0);
      await reader?.close();
    });

    for (const { size, expected } of [
      { size: 100_000, expected: 100_000 },
      { size: 3 * MIB + 17, expected: 3 * MIB + 17 },
      { size: 100_000, expected: undefined },
    ]) {
      void it(`publishes ${size} bytes appended in parts, ${expected ?? "unknown"} expected`, async (test) => {
        const store = await make(test);
        const { digest, bytes } = content("parts", size);
        const writer = await store.beginWrite({
          kind: "fill",
          digest,
          expectedBytes: expected,
        });
        assert.equal(writer.writtenBytes, 0);
        for (const [from, to] of [
          [0, 1],
          [1, 70_000],
          [70_000, 70_000],
          [70_000, size],
        ] as const) {
          const middle = Math.floor((from + to) / 2);
          await writer.append([
            bytes.subarray(from, middle),
            bytes.subarray(middle, to),
          ]);
          assert.equal(writer.writtenBytes, to);
          assert.equal(
            await writer.hash.digest(),
            digestOf(bytes.subarray(0, to)),
          );
        }
        assert.equal(await store.open(digest, size), undefined);
        await writer.commit(digest);
        assert.deepEqual(await readAll(await store.open(digest, size)), bytes);
      });
    }

    void it("reads any range, up to the end and not beyond", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("ranges", 300_000);
      await store.put(digest, bytes);
      const reader = await store.open(digest, bytes.length);
      assert(reader !== undefined);
      assert.equal(reader.sizeBytes, bytes.length);
      const target = Buffer.alloc(1_000);
      assert.equal(await reader.read(target, 123_456), 1_000);
      assert.deepEqual(target, bytes.subarray(123_456, 124_456));
      assert.equal(await reader.read(target, 299_999), 1);
      assert.equal(target[0], bytes[299_999]);
      assert.equal(await reader.read(target, 300_000), 0);
      assert.equal(await reader.read(target, 400_000), 0);
      const parts = await Promise.all(
        [0, 100_000, 200_000].map(async (position) => {
          const part = Buffer.alloc(100_000);
          await reader.read(part, position);
          return part;
        }),
      );
      assert.deepEqual(Buffer.concat(parts), bytes);
      await reader.close();
    });

    for (const size of [0, 100_000, 3 * MIB + 17]) {
      void it(`compares a blob of ${size} bytes with its digest`, async (test) => {
        const store = await make(test);
        const { signal } = new AbortController();
        const { digest, bytes } = content("verified", size);
        assert.equal(await store.verify(digest, size, signal), undefined);
        await store.put(digest, bytes);
        assert.equal(await store.verify(digest, size, signal), "right");
        assert.equal(await store.verify(digest, size + 1, signal), undefined);
        const other = content("other", 10).digest;
        await store.put(other, bytes);
        assert.equal(await store.verify(other, size, signal), "wrong");
        await assert.rejects(
          store.verify(digest, size, AbortSignal.abort(new Error("stopped"))),
          /stopped/,
        );
      });
    }

    void it("keeps an open blob readable after it is removed or replaced", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("removed", 2 * MIB);
      await store.put(digest, bytes);
      const reader = await store.open(digest, bytes.length);
      await store.put(digest, bytes);
      await store.remove(digest);
      assert.deepEqual(await readAll(reader), bytes);
    });

    void it("lets readers follow a writer while it grows and after it ends", async (test) => {
      const store = await make(test);
      for (const end of ["commit", "suspend", "abort"] as const) {
        const { digest, bytes } = content(`follow ${end}`, 2 * MIB);
        const writer = await store.beginWrite({
          kind: "fill",
          digest,
          expectedBytes: bytes.length,
        });
        const reader = await writer.openReader();
        assert.equal(await reader.read(Buffer.alloc(10), 0), 0);
        await writer.append([bytes.subarray(0, MIB)]);
        const target = Buffer.alloc(2 * MIB);
        assert.equal(await reader.read(target, 0), MIB);
        assert.equal(await reader.read(target, MIB), 0);
        await writer.append([bytes.subarray(MIB)]);
        const late = await writer.openReader();
        const underWay = late.read(target, 0);
        await writer[end](digest);
        assert.equal(await underWay, 2 * MIB);
        assert.deepEqual(target, bytes);
        assert.deepEqual(await readAll(reader), bytes);
        await late.close();
      }
    });

    void it("keeps the bytes of a suspended writer for the next one, and hashes them again", async (test) => {
      const store = await make(test);
      for (const size of [200_000, 3 * MIB]) {
        const { digest, bytes } = content(`suspended ${size}`, size);
        const half = Math.floor(size / 2);
        const first = await store.beginWrite({
          kind: "fill",
          digest,
          expectedBytes: size,
        });
        await first.append([bytes.subarray(0, half)]);
        await first.suspend();
        assert.equal(await store.open(digest, half), undefined);
        const second = await store.beginWrite({
          kind: "fill",
          digest,
          expectedBytes: size,
        });
        assert.equal(second.writtenBytes, half);
        await second.append([bytes.subarray(half)]);
        assert.equal(await second.hash.digest(), digest);
        await second.commit(digest);
        assert.deepEqual(await readAll(await store.open(digest, size)), bytes);
      }
    });

    void it("keeps nothing of an aborted writer", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("discarded", 200_000);
      await appended(store, digest, bytes, bytes.length).then((writer) =>
        writer.abort(),
      );
      const again = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: bytes.length,
      });
      assert.equal(again.writtenBytes, 0);
      await again.abort();
    });

    void it("keeps nothing of a suspended write that is longer than the blob", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("long", 2_000);
      await appended(store, digest, bytes, undefined).then((writer) =>
        writer.suspend(),
      );
      const again = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: 1_999,
      });
      assert.equal(again.writtenBytes, 0);
      await again.abort();
    });

    void it("adopts a published blob as the partial of a new fill", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("adopted", 2 * MIB);
      await store.put(digest, bytes);
      const writer = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: bytes.length,
      });
      assert.equal(await store.open(digest, bytes.length), undefined);
      assert.equal(writer.writtenBytes, bytes.length);
      assert.equal(await writer.hash.digest(), digest);
      await writer.commit(digest);
      assert.deepEqual(
        await readAll(await store.open(digest, bytes.length)),
        bytes,
      );
    });

    void it("separates the partials of two upstreams, and replaces a published blob that is being read", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("two sources", 2 * MIB);
      const open = (upstream: string) =>
        store.beginWrite({
          kind: "fill",
          digest: digest,
          expectedBytes: bytes.length,
          source: { upstream, mayAdopt: false },
        });
      const first = await open("a.example");
      const second = await open("b.example");
      await first.append([bytes]);
      await second.append([bytes.subarray(0, MIB)]);
      await second.suspend();
      await first.commit(digest);
      const reader = await store.open(digest, bytes.length);
      const again = await open("b.example");
      assert.equal(again.writtenBytes, MIB);
      assert.equal((await open("c.example")).writtenBytes, 0);
      await again.append([bytes.subarray(MIB)]);
      assert.equal(await again.hash.digest(), digest);
      await again.commit(digest);
      assert.deepEqual(await readAll(reader), bytes);
      assert.deepEqual(
        await readAll(await store.open(digest, bytes.length)),
        bytes,
      );
    });

    void it("lets only a fill that may adopt bytes continue those of an unknown upstream", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("unknown source", 200_000);
      const left = await store.beginWrite({
        kind: "fill",
        digest,
        expectedBytes: bytes.length,
      });
      await left.append([bytes.subarray(0, 100_000)]);
      await left.suspend();
      const open = (upstream: string, mayAdopt: boolean) =>
        store.beginWrite({
          kind: "fill",
          digest: digest,
          expectedBytes: bytes.length,
          source: { upstream, mayAdopt },
        });
      const strict = await open("a.example", false);
      assert.equal(strict.writtenBytes, 0);
      await strict.abort();
      const adopted = await open("b.example", true);
      assert.equal(adopted.writtenBytes, 100_000);
      await adopted.append([bytes.subarray(100_000)]);
      assert.equal(await adopted.hash.digest(), digest);
      await adopted.abort();
    });

    for (const expected of [1_000, undefined]) {
      void it(`forks a hash of ${expected ?? "unknown"} bytes and returns digests in between`, async (test) => {
        const store = await make(test);
        const { bytes } = content("fork", 9_000);
        const hash = store.createHash("sha256", expected);
        assert.equal(await hash.digest(), digestOf(Buffer.alloc(0)));
        const reused = Buffer.from(bytes.subarray(0, 4_000));
        hash.update(reused);
        reused.fill(0);
        const fork = hash.fork();
        hash.update(bytes.subarray(4_000, 6_000));
        fork.update(bytes.subarray(4_000));
        const forkOfFork = fork.fork();
        assert.equal(await fork.digest(), digestOf(bytes));
        fork.close();
        assert.equal(await hash.digest(), digestOf(bytes.subarray(0, 6_000)));
        hash.close();
        hash.close();
        assert.equal(await forkOfFork.digest(), digestOf(bytes));
        forkOfFork.close();
        await assert.rejects(fork.digest(), { name: "StorageError" });
      });
    }

    void it("hashes bytes that pass by a writer after those that it stored", async (test) => {
      const store = await make(test);
      for (const size of [100_000, 3 * MIB]) {
        const { digest, bytes } = content(`pass ${size}`, size);
        const writer = await store.beginWrite({
          kind: "fill",
          digest,
          expectedBytes: size,
        });
        await writer.append([bytes.subarray(0, 60_000)]);
        const fork = writer.hash.fork();
        writer.hash.update(bytes.subarray(60_000));
        assert.equal(await writer.hash.digest(), digest);
        await writer.abort();
        fork.update(bytes.subarray(60_000));
        assert.equal(await fork.digest(), digest);
        fork.close();
      }
    });

    void it("hashes many blobs concurrently", async (test) => {
      const store = await make(test);
      await Promise.all(
        Array.from({ length: 8 }, async (_, index) => {
          const { digest, bytes } = content(`many ${index}`, 3 * MIB + index);
          const writer = await store.beginWrite({
            kind: "fill",
            digest,
            expectedBytes: bytes.length,
          });
          for (let at = 0; at < bytes.length; at += MIB) {
            await writer.append([bytes.subarray(at, at + MIB)]);
          }
          assert.equal(await writer.hash.digest(), digest);
          await writer.commit(digest);
          assert.deepEqual(await store.read(digest, bytes.length), bytes);
        }),
      );
    });

    void it("commits an upload under the digest of its bytes", async (test) => {
      const store = await make(test);
      for (const algorithm of ["sha256", "sha512"] as const) {
        for (const size of [0, 100_000, 3 * MIB + 17]) {
          const bytes = seededBytes(`upload ${size}`, size).read(0, size);
          const target = upload(`${algorithm}-${size}`, algorithm);
          const writer = await store.beginWrite(target);
          assert.equal(writer.writtenBytes, 0);
          await writer.append([bytes.subarray(0, 1_000)]);
          await writer.append([bytes.subarray(1_000)]);
          const digest = await writer.hash.digest();
          assert.equal(digest, digestOf(bytes, algorithm));
          assert.equal(await store.open(digest, size), undefined);
          await writer.commit(digest);
          assert.deepEqual(
            await readAll(await store.open(digest, size)),
            bytes,
          );
          const next = await store.beginWrite(target);
          assert.equal(next.writtenBytes, 0);
          await next.abort();
        }
      }
    });

    void it("continues a suspended upload by its id", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("suspended upload", 3 * MIB);
      const first = await store.beginWrite(upload("continued"));
      await first.append([bytes.subarray(0, MIB)]);
      await first.suspend();
      const other = await store.beginWrite(upload("another"));
      assert.equal(other.writtenBytes, 0);
      await other.abort();
      const second = await store.beginWrite(upload("continued"));
      assert.equal(second.writtenBytes, MIB);
      const reader = await second.openReader();
      await second.append([bytes.subarray(MIB)]);
      assert.equal(await second.hash.digest(), digest);
      await second.commit(digest);
      assert.deepEqual(await readAll(reader), bytes);
      assert.deepEqual(
        await readAll(await store.open(digest, bytes.length)),
        bytes,
      );
    });

    void it("replaces a published blob by an equal upload", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("uploaded again", 200_000);
      await store.put(digest, bytes);
      const reader = await store.open(digest, bytes.length);
      const writer = await store.beginWrite(upload("uploaded-again"));
      await writer.append([bytes]);
      await writer.commit(digest);
      assert.deepEqual(await readAll(reader), bytes);
      assert.deepEqual(await store.read(digest, bytes.length), bytes);
    });

    void it("keeps nothing of an aborted upload", async (test) => {
      const store = await make(test);
      const { digest, bytes } = content("aborted upload", 200_000);
      const writer = await store.beginWrite(upload("aborted"));
      await writer.append([bytes]);
      await writer.abort();
      assert.equal(await store.open(digest, bytes.length), undefined);
      const next = await store.beginWrite(upload("aborted"));
      assert.equal(next.writtenBytes, 0);
      await next.abort();
    });

    void it("lists each published blob with its size, and no unfinished one", async (test) => {
      const store = await make(test);
      const list = async (): Promise<Map<Digest, number>> => {
        const found = new Map<Digest, number>();
        await store.list((page) => {
          for (const { digest, sizeBytes } of page) {
            assert(!found.has(digest));
            found.set(digest, sizeBytes);
          }
        });
        return found;
      };
      assert.equal((await list()).size, 0);
      const want = new Map<Digest, number>();
      for (let size = 0; size < 600; size++) {
        const { bytes } = content(`listed ${size}`, size);
        const digest = digestOf(bytes, size % 2 === 0 ? "sha256" : "sha512");
        await store.put(digest, bytes);
        want.set(digest, size);
      }
      const { digest, bytes } = content("not listed", 10);
      const writers = [
        await store.beginWrite({ kind: "fill", digest }),
        await store.beginWrite(upload("not-listed")),
      ];
      for (const writer of writers) await writer.append([bytes]);
      assert.deepEqual(sorted(await list()), sorted(want));
      for (const writer of writers) await writer.abort();
      await assert.rejects(
        store.list(() => Promise.reject(new Error("stopped"))),
        /stopped/,
      );
    });

    void it("returns the size of a suspended upload, and 0 for an unknown one", async (test) => {
      const store = await make(test);
      const target = upload("measured");
      assert.equal(await store.readUploadSize(target.id), 0);
      const writer = await store.beginWrite(target);
      await writer.append([Buffer.from("four")]);
      await writer.suspend();
      assert.equal(await store.readUploadSize(target.id), 4);
      assert.equal(await store.readUploadSize(upload("other").id), 0);
      await (await store.beginWrite(target)).abort();
      assert.equal(await store.readUploadSize(target.id), 0);
    });

    void it("reports whether it accepts writes", async (test) => {
      const store = await make(test);
      await store.probe();
      await store.probe();
    });
  });
}

function upload(
  name: string,
  algorithm: DigestAlgorithm = "sha256",
): UploadTarget {
  const id = parseUploadId(`an-upload-in-a-test-${name}`);
  assert(id !== undefined);
  return { kind: "upload", id, algorithm };
}

function sorted(blobs: ReadonlyMap<Digest, number>): [Digest, number][] {
  return [...blobs].sort(([a], [b]) => (a < b ? -1 : 1));
}

async function appended(
  store: BlobStore,
  digest: Digest,
  bytes: Buffer,
  expectedBytes: number | undefined,
): Promise<BlobWriter> {
  const writer = await store.beginWrite({
    kind: "fill",
    digest,
    expectedBytes,
  });
  await writer.append([bytes]);
  return writer;
}

/** Returns all bytes of a reader and closes it. */
export async function readAll(
  reader: BlobReader | undefined,
): Promise<Buffer | undefined> {
  if (reader === undefined) return undefined;
  const bytes = Buffer.alloc(reader.sizeBytes);
  assert.equal(await reader.read(bytes, 0), bytes.length);
  await reader.close();
  return bytes;
}

export function content(
  seed: string,
  sizeBytes: number,
): { digest: Digest; bytes: Buffer } {
  const bytes = seededBytes(seed, sizeBytes).read(0, sizeBytes);
  return { digest: digestOf(bytes), bytes };
}
