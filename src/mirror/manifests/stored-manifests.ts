import type { BlobStore } from "../../storage/blob-store.ts";
import type { HotManifests } from "../../storage/hot-manifests.ts";
import type {
  BlobLinks,
  BlobRecord,
  BlobRecords,
  BlobRow,
  FillIntents,
} from "../../storage/blob-index.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import { type Digest, digestAlgorithm, digestOf } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import { parseManifest } from "../../oci/manifest.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { UpstreamManifest } from "../../upstream/client.ts";
import {
  type FetchedManifest,
  flightOf,
  type Manifest,
} from "./manifest-answers.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

type StoredIndex = Pick<BlobLinks, "getLinkedBlob" | "link"> &
  Pick<BlobRecords, "forgetBlob" | "getBlob" | "noteVerified" | "recordBlob"> &
  Pick<FillIntents, "beginFill" | "dropIntent"> &
  Pick<UseIndex, "touchManifest">;

/** A client does not wait longer than this until the storage has a manifest that was fetched for it. */
const STORE_PATIENCE_MS = 2_000;
/** Soon after access times are written: a manifest served from memory is known to be on disk 5 s later. */
const CHECK_AFTER_MS = 4_000;
/** Files that are checked concurrently, outside of requests. */
const FILES_AT_ONCE = 16;
const NEXT_FILES_AFTER_MS = 10;

interface StoredManifestsParts {
  readonly store: BlobStore;
  readonly index: StoredIndex;
  readonly hot: HotManifests;
  readonly clock: Clock;
  readonly log: Logger;
  readonly schedule?: Schedule;
  readonly patienceMs?: number;
  /** Age of the last verification after which a file is read; absent: never. May change at any time. */
  readonly verifyAfterMs?: () => number;
}

/** Manifests in memory, in the store and in the index; looked up in this order. */
export class StoredManifests {
  readonly #parts: StoredManifestsParts;
  /** Served from memory since their files were last checked; bounded by what memory holds. */
  #served = new Map<Digest, RepositoryKey>();
  /** Those of the served ones whose files are being checked. */
  #checking = new Map<Digest, RepositoryKey>();
  /** Manifests that are being written. */
  readonly #storing = new Map<string, Promise<boolean>>();
  #cancel: (() => void) | undefined;
  #lastCheck: Promise<void> = Promise.resolve();

  constructor(parts: StoredManifestsParts) {
    this.#parts = parts;
  }

  /**
   * Returns a manifest that is in memory. Memory would hide that another process removed the file,
   * and the next start would find an incomplete image; so the file is checked a moment later.
   */
  recall(key: RepositoryKey, digest: Digest): Buffer | undefined {
    const hot = this.#parts.hot.get(digest);
    if (hot === undefined) return undefined;
    this.#served.set(digest, key);
    this.#checkAfter(CHECK_AFTER_MS);
    return hot;
  }

  /**
   * Resolves when the file of every manifest served from memory, or before it was stored, exists or
   * cannot be written.
   */
  async settle(): Promise<void> {
    do {
      this.#cancel?.();
      await this.#check();
      await Promise.all(this.#storing.values());
    } while (this.#checking.size + this.#served.size > 0);
  }

  /** @returns undefined if the bytes are gone, or cannot be read now */
  async read(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number,
    mediaType: string,
  ): Promise<Manifest | undefined> {
    const hot = this.recall(key, digest);
    if (hot !== undefined) return { bytes: hot, mediaType, digest };
    try {
      const bytes = await this.#parts.store.read(digest, sizeBytes);
      // Small enough to be hashed each time it is read from disk.
      if (
        bytes === undefined ||
        digestOf(bytes, digestAlgorithm(digest)) !== digest
      ) {
        await this.#parts.index.forgetBlob(digest);
        return undefined;
      }
      this.#parts.hot.set(digest, bytes);
      return { bytes, mediaType, digest };
    } catch {
      return undefined;
    }
  }

  /**
   * Stores verified bytes. If the storage fails, nothing is stored and the answer is not affected; if
   * it is slow, it continues in the background and the answer says that the bytes are not stored.
   */
  async keep(
    key: RepositoryKey,
    digest: Digest,
    fetched: Pick<UpstreamManifest, "bytes" | "mediaType">,
  ): Promise<FetchedManifest> {
    const parsed = parseManifest(fetched.bytes, fetched.mediaType);
    if (!parsed.ok) {
      throw new RegistryError("MANIFEST_INVALID", { detail: parsed.detail });
    }
    const { bytes } = fetched;
    const { mediaType, children, subject } = parsed;
    const manifest = { mediaType, children, subject };
    const flight = flightOf(key, digest);
    const storing =
      this.#storing.get(flight) ??
      this.#put(key, digest, bytes, manifest).finally(() =>
        this.#storing.delete(flight),
      );
    this.#storing.set(flight, storing);
    const late = Promise.withResolvers<boolean>();
    const timer = setTimeout(
      () => late.resolve(false),
      this.#parts.patienceMs ?? STORE_PATIENCE_MS,
    );
    try {
      const isStored = await Promise.race([storing, late.promise]);
      return { bytes, mediaType, digest, isStored };
    } finally {
      clearTimeout(timer);
    }
  }

  /** @returns whether it is stored */
  async #put(
    key: RepositoryKey,
    digest: Digest,
    bytes: Buffer,
    manifest: NonNullable<BlobRecord["manifest"]>,
  ): Promise<boolean> {
    const { mediaType } = manifest;
    const sizeBytes = bytes.length;
    try {
      if (await this.#linkStored(key, digest, sizeBytes, mediaType)) {
        this.#parts.hot.set(digest, bytes);
        return true;
      }
      await this.#parts.index.beginFill(key, { digest, sizeBytes, mediaType });
      try {
        await this.#parts.store.put(digest, bytes);
      } catch (error) {
        await this.#parts.index.dropIntent(digest).catch(() => undefined);
        throw error;
      }
      await this.#parts.index.recordBlob(key, {
        digest,
        sizeBytes,
        storedAtMs: this.#parts.clock.nowMs(),
        manifest,
      });
      this.#parts.hot.set(digest, bytes);
      return true;
    } catch (error) {
      this.#parts.log.warn(
        { err: error, upstream: key.upstream, digest },
        "could not store a manifest",
      );
      return false;
    }
  }

  /**
   * Links bytes that another upstream or another repository has stored before, without writing them
   * again.
   *
   * @returns whether they are stored
   */
  async #linkStored(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number,
    mediaType: string,
  ): Promise<boolean> {
    const row = await this.#parts.index.getBlob(digest);
    if (row?.mediaType === undefined || row.sizeBytes !== sizeBytes) {
      return false;
    }
    const file = await this.#parts.store.open(digest, sizeBytes);
    if (file === undefined) return false;
    await file.close();
    await this.#parts.index.link(key, digest, mediaType);
    // An eviction may have removed it in the meantime.
    if ((await this.#parts.index.getLinkedBlob(key, digest)) === undefined) {
      return false;
    }
    this.#parts.index.touchManifest(key, digest, this.#parts.clock.nowMs());
    return true;
  }

  /** Checks some files, and schedules the check of the others. Never rejects. */
  #check(): Promise<void> {
    this.#lastCheck = this.#lastCheck.then(async () => {
      if (this.#checking.size === 0) {
        this.#checking = this.#served;
        this.#served = new Map();
      }
      const batch: Promise<void>[] = [];
      for (const [digest, key] of this.#checking) {
        this.#checking.delete(digest);
        batch.push(this.#restore(key, digest));
        if (batch.length === FILES_AT_ONCE) break;
      }
      await Promise.all(batch);
      this.#cancel = undefined;
      if (this.#checking.size > 0) this.#checkAfter(NEXT_FILES_AFTER_MS);
      else if (this.#served.size > 0) this.#checkAfter(CHECK_AFTER_MS);
    });
    return this.#lastCheck;
  }

  #checkAfter(delayMs: number): void {
    if (this.#cancel !== undefined) return;
    const { schedule = scheduleUnref } = this.#parts;
    this.#cancel = schedule(() => void this.#check(), delayMs);
  }

  /** Writes the file of a manifest that is in memory again if it is gone or wrong. */
  async #restore(key: RepositoryKey, digest: Digest): Promise<void> {
    const hot = this.#parts.hot.get(digest);
    if (hot === undefined) return;
    try {
      const row = await this.#parts.index.getLinkedBlob(key, digest);
      if (row?.mediaType === undefined) return;
      const { mediaType } = row;
      const file = await this.#parts.store.open(digest, row.sizeBytes);
      await file?.close();
      if (file !== undefined && (await this.#isIntact(row))) return;
      // An eviction removes it from memory before it removes the file.
      if (this.#parts.hot.get(digest) !== hot) return;
      // A file of the same size would be accepted as the manifest.
      if (file !== undefined) await this.#parts.store.remove(digest);
      const { isStored } = await this.keep(key, digest, {
        bytes: hot,
        mediaType,
      });
      if (!isStored) return;
      this.#parts.log.warn(
        { upstream: key.upstream, digest },
        file === undefined
          ? "wrote the missing file of a manifest again"
          : "wrote the wrong file of a manifest again",
      );
    } catch {
      // Unknown for now; the file is checked again when the manifest is next served from memory.
    }
  }

  /** Whether a file is intact; it is read if its last verification is old. */
  async #isIntact({
    digest,
    sizeBytes,
    verifiedAtMs,
  }: BlobRow): Promise<boolean> {
    const nowMs = this.#parts.clock.nowMs();
    const { verifyAfterMs = () => Infinity } = this.#parts;
    if (nowMs - verifiedAtMs < verifyAfterMs()) return true;
    const bytes = await this.#parts.store.read(digest, sizeBytes);
    if (
      bytes === undefined ||
      digestOf(bytes, digestAlgorithm(digest)) !== digest
    ) {
      return false;
    }
    await this.#parts.index.noteVerified([digest], nowMs);
    return true;
  }
}
