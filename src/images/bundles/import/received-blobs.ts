import { randomUUID } from "node:crypto";
import { type Digest, digestAlgorithm } from "../../../oci/digest.ts";
import type { RepositoryName } from "../../../oci/reference.ts";
import type { Evictor } from "../../../retention/evictor.ts";
import type { BlobRecords } from "../../../storage/blob-index.ts";
import {
  type BlobWriter,
  IMPORT_ID_PREFIX,
  parseUploadId,
} from "../../../storage/blob-store.ts";
import type { ContentHash } from "../../../storage/content-hash.ts";
import type { RetentionIndex } from "../../../storage/root-index.ts";
import type { TrackedBlobStore } from "../../../storage/tracked-blob-store.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import { refuseBundle } from "./bundle-refusal.ts";
import type { ImportRoom } from "./import-room.ts";
import type { ArchiveMember } from "./read-archive.ts";

export interface ReceivedBlobsParts {
  readonly blobs: TrackedBlobStore;
  readonly index: Pick<BlobRecords, "adoptBlob" | "getBlob"> &
    Pick<RetentionIndex, "dropRoot">;
  readonly evictor: Pick<Evictor, "purgeCondemned">;
  readonly clock: Clock;
}

/** Bytes of one append: fewer calls of the system than chunks of a socket. */
const BATCH_BYTES = 1024 * 1024;
/** The repository of blobs that no repository has. */
const NO_REPOSITORY = { upstream: "", repository: "" as RepositoryName };

/**
 * The blobs of one bundle on their way to the store. Each is verified, published and adopted: it has
 * a row and no link, so that no client can read it yet. Until {@link release} none of them is evicted.
 */
export class ReceivedBlobs {
  readonly #parts: ReceivedBlobsParts;
  readonly #room: ImportRoom;
  /** Sizes of the blobs of the bundle. */
  readonly #sizes = new Map<Digest, number>();
  readonly #holds = new Map<Digest, () => void>();
  /** Those that were not stored before. */
  readonly #added = new Map<Digest, number>();

  constructor(parts: ReceivedBlobsParts, room: ImportRoom) {
    this.#parts = parts;
    this.#room = room;
  }

  /** Returns whether the bundle has the blob, and how large it is. */
  sizeOf(digest: Digest): number | undefined {
    return this.#sizes.get(digest);
  }

  /** Counts those of the blobs, and their bytes, that were not stored before. */
  countAdded(digests: ReadonlySet<Digest>): {
    readonly blobs: number;
    readonly bytes: number;
  } {
    let [blobs, bytes] = [0, 0];
    for (const [digest, sizeBytes] of this.#added) {
      if (!digests.has(digest)) continue;
      blobs += 1;
      bytes += sizeBytes;
    }
    return { blobs, bytes };
  }

  /** Keeps a stored blob from eviction until {@link release}. */
  async hold(digest: Digest): Promise<void> {
    if (this.#holds.has(digest)) return;
    this.#holds.set(digest, await this.#parts.blobs.hold(digest));
  }

  /**
   * Stores one blob, or compares it with its digest if it is stored already.
   *
   * @throws RegistryError if its bytes do not have the digest, it was received before, or there is no
   *   room; StorageError, IndexError; what the body throws
   */
  async receive(digest: Digest, member: ArchiveMember): Promise<void> {
    if (this.#sizes.has(digest)) {
      throw refuseBundle(`member ${member.name}: got it twice; expected once`);
    }
    await this.hold(digest);
    if (await this.#isStored(digest, member.sizeBytes)) {
      await this.#compare(digest, member);
    } else {
      await this.#store(digest, member);
    }
    this.#sizes.set(digest, member.sizeBytes);
  }

  async #isStored(digest: Digest, sizeBytes: number): Promise<boolean> {
    const { blobs, index } = this.#parts;
    const row = await index.getBlob(digest);
    if (row?.sizeBytes !== sizeBytes) return false;
    const reader = await blobs.open(digest, sizeBytes);
    await reader?.close();
    return reader !== undefined;
  }

  async #compare(digest: Digest, member: ArchiveMember): Promise<void> {
    const hash = this.#parts.blobs.createHash(
      digestAlgorithm(digest),
      member.sizeBytes,
    );
    try {
      for await (const chunk of member.body) hash.update(chunk);
      await assertDigest(hash, digest, member);
    } finally {
      hash.close();
    }
  }

  async #store(digest: Digest, member: ArchiveMember): Promise<void> {
    const { blobs, index, clock } = this.#parts;
    const { sizeBytes } = member;
    const id = parseUploadId(IMPORT_ID_PREFIX + randomUUID());
    if (id === undefined) throw new TypeError("got no upload id");
    const place = await this.#room.reserve(sizeBytes, member.name);
    try {
      // As an upload and not as a fill: two imports may write the same blob, beside a fill of it.
      const writer = await blobs.beginWrite({
        kind: "upload",
        id,
        algorithm: digestAlgorithm(digest),
        expectedBytes: sizeBytes,
      });
      let isCommitting = false;
      try {
        await append(writer, member.body, place.onWritten);
        await assertDigest(writer.hash, digest, member);
        isCommitting = true;
        await writer.commit(digest);
      } finally {
        if (!isCommitting) await writer.abort();
      }
      try {
        await index.adoptBlob({ digest, sizeBytes, storedAtMs: clock.nowMs() });
      } catch (error) {
        const row = await index.getBlob(digest).catch(() => null);
        if (row === undefined)
          await blobs.remove(digest).catch(() => undefined);
        throw error;
      }
      this.#added.set(digest, sizeBytes);
    } finally {
      place.release();
    }
  }

  /** Ends the protection from eviction. */
  release(): void {
    for (const release of this.#holds.values()) release();
    this.#holds.clear();
  }

  /**
   * Drops the blobs that this import added and that nothing needs, after {@link release}. Those that a
   * client has fetched meanwhile stay.
   *
   * @throws IndexError
   */
  async dropUnneeded(): Promise<void> {
    const { index, evictor } = this.#parts;
    for (const digest of this.#added.keys()) {
      await index.dropRoot(NO_REPOSITORY, { kind: "digest", digest });
    }
    for (;;) {
      const { isEnd, blobs } = await evictor.purgeCondemned();
      if (isEnd || blobs === 0) return;
    }
  }
}

async function append(
  writer: BlobWriter,
  body: AsyncIterable<Uint8Array>,
  onWritten: (bytes: number) => void,
): Promise<void> {
  let batch: Uint8Array[] = [];
  let batchBytes = 0;
  const flush = async (): Promise<void> => {
    if (batchBytes === 0) return;
    await writer.append(batch);
    onWritten(writer.writtenBytes);
    batch = [];
    batchBytes = 0;
  };
  for await (const chunk of body) {
    batch.push(chunk);
    batchBytes += chunk.length;
    if (batchBytes >= BATCH_BYTES) await flush();
  }
  await flush();
}

/** @throws RegistryError */
async function assertDigest(
  hash: ContentHash,
  digest: Digest,
  { name }: ArchiveMember,
): Promise<void> {
  const found = await hash.digest();
  if (found === digest) return;
  throw refuseBundle(
    `member ${name} is damaged: got bytes of ${found}; expected ${digest}`,
  );
}
