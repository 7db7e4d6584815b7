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

/** An engine waits for a manifest that is here already no longer than this for the disk. */
const STORE_PATIENCE_MS = 2_000;
/** Told with the access times: what was served from memory is known to be on disk some 5 s later. */
const LOOK_AFTER_MS = 4_000;
/** Files that are looked for side by side, off the requests' path. */
const FILES_AT_ONCE = 16;
const NEXT_FILES_AFTER_MS = 10;

/** Manifests in memory, in the store and in the index, which is the order in which they are looked for. */
export class StoredManifests {
  readonly #store: BlobStore;
  readonly #index: StoredIndex;
  readonly #hot: HotManifests;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #schedule: Schedule;
  /** Served from memory since its file was last looked for; never more than the memory holds. */
  #served = new Map<Digest, RepositoryKey>();
  /** Those of them whose files are being looked for. */
  #sought = new Map<Digest, RepositoryKey>();
  /** Manifests on their way to the disk. */
  readonly #storing = new Map<string, Promise<boolean>>();
  readonly #patienceMs: number;
  readonly #verifyAfterMs: () => number;
  #cancel: (() => void) | undefined;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: {
    readonly store: BlobStore;
    readonly index: StoredIndex;
    readonly hot: HotManifests;
    readonly clock: Clock;
    readonly log: Logger;
    readonly schedule?: Schedule;
    readonly patienceMs?: number;
    /** Files that were verified longer ago are read; absent: none. May change at any time. */
    readonly verifyAfterMs?: () => number;
  }) {
    this.#store = options.store;
    this.#index = options.index;
    this.#hot = options.hot;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#schedule = options.schedule ?? scheduleUnref;
    this.#patienceMs = options.patienceMs ?? STORE_PATIENCE_MS;
    this.#verifyAfterMs = options.verifyAfterMs ?? (() => Infinity);
  }

  /**
   * What is in memory. That hides a file that went behind the mirror's back until the next start,
   * which would then find half an image; so the files are looked for a moment later.
   */
  recall(key: RepositoryKey, digest: Digest): Buffer | undefined {
    const hot = this.#hot.get(digest);
    if (hot === undefined) return undefined;
    this.#served.set(digest, key);
    this.#lookAfter(LOOK_AFTER_MS);
    return hot;
  }

  /** Resolves when the file of everything that was served, from memory or before it was stored, is there, or can't be. */
  async settle(): Promise<void> {
    do {
      this.#cancel?.();
      await this.#look();
      await Promise.all(this.#storing.values());
    } while (this.#sought.size + this.#served.size > 0);
  }

  /** @returns undefined where its bytes are gone, or can't be read now */
  async read(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number,
    mediaType: string,
  ): Promise<Manifest | undefined> {
    const hot = this.recall(key, digest);
    if (hot !== undefined) return { bytes: hot, mediaType, digest };
    try {
      const bytes = await this.#store.read(digest, sizeBytes);
      // Small enough to be hashed each time it comes from the disk.
      if (
        bytes === undefined ||
        digestOf(bytes, digestAlgorithm(digest)) !== digest
      ) {
        await this.#index.forgetBlob(digest);
        return undefined;
      }
      this.#hot.set(digest, bytes);
      return { bytes, mediaType, digest };
    } catch {
      return undefined;
    }
  }

  /**
   * Stores verified bytes. A storage that fails keeps nothing and spoils nothing; one that is slow
   * goes on behind the answer, which then says that they are not stored.
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
    const timer = setTimeout(() => late.resolve(false), this.#patienceMs);
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
        this.#hot.set(digest, bytes);
        return true;
      }
      await this.#index.beginFill(key, { digest, sizeBytes, mediaType });
      try {
        await this.#store.put(digest, bytes);
      } catch (error) {
        await this.#index.dropIntent(digest).catch(() => undefined);
        throw error;
      }
      await this.#index.recordBlob(key, {
        digest,
        sizeBytes,
        storedAtMs: this.#clock.nowMs(),
        manifest,
      });
      this.#hot.set(digest, bytes);
      return true;
    } catch (error) {
      this.#log.warn(
        { err: error, upstream: key.upstream, digest },
        "a manifest could not be stored",
      );
      return false;
    }
  }

  /**
   * The same bytes came from another upstream, or for another repository, before: they are linked
   * and not written again.
   *
   * @returns whether they are there
   */
  async #linkStored(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number,
    mediaType: string,
  ): Promise<boolean> {
    const row = await this.#index.getBlob(digest);
    if (row?.mediaType === undefined || row.sizeBytes !== sizeBytes) {
      return false;
    }
    const file = await this.#store.open(digest, sizeBytes);
    if (file === undefined) return false;
    await file.close();
    await this.#index.link(key, digest, mediaType);
    // An eviction may have taken it meanwhile.
    if ((await this.#index.getLinkedBlob(key, digest)) === undefined) {
      return false;
    }
    this.#index.touchManifest(key, digest, this.#clock.nowMs());
    return true;
  }

  /** Looks for some files, for the rest a little later, and for what is served since in its turn. Never rejects. */
  #look(): Promise<void> {
    this.#looking = this.#looking.then(async () => {
      if (this.#sought.size === 0) {
        this.#sought = this.#served;
        this.#served = new Map();
      }
      const some: Promise<void>[] = [];
      for (const [digest, key] of this.#sought) {
        this.#sought.delete(digest);
        some.push(this.#restore(key, digest));
        if (some.length === FILES_AT_ONCE) break;
      }
      await Promise.all(some);
      this.#cancel = undefined;
      if (this.#sought.size > 0) this.#lookAfter(NEXT_FILES_AFTER_MS);
      else if (this.#served.size > 0) this.#lookAfter(LOOK_AFTER_MS);
    });
    return this.#looking;
  }

  #lookAfter(delayMs: number): void {
    this.#cancel ??= this.#schedule(() => void this.#look(), delayMs);
  }

  /** Puts the file of a manifest that is in memory back where it is gone, or wrong. */
  async #restore(key: RepositoryKey, digest: Digest): Promise<void> {
    const hot = this.#hot.get(digest);
    if (hot === undefined) return;
    try {
      const row = await this.#index.getLinkedBlob(key, digest);
      if (row?.mediaType === undefined) return;
      const { mediaType } = row;
      const file = await this.#store.open(digest, row.sizeBytes);
      await file?.close();
      if (file !== undefined && (await this.#isRight(row))) return;
      // An eviction takes it out of memory before its file.
      if (this.#hot.get(digest) !== hot) return;
      // A file of that size would be taken for it.
      if (file !== undefined) await this.#store.remove(digest);
      const { isStored } = await this.keep(key, digest, {
        bytes: hot,
        mediaType,
      });
      if (!isStored) return;
      this.#log.warn(
        { upstream: key.upstream, digest },
        file === undefined
          ? "the file of a manifest was gone and is put back"
          : "the file of a manifest was wrong and is put back",
      );
    } catch {
      // Nobody can tell now; the next time that it is served from memory it is looked for again.
    }
  }

  /** Reads a file that was not verified for long. */
  async #isRight({
    digest,
    sizeBytes,
    verifiedAtMs,
  }: BlobRow): Promise<boolean> {
    const nowMs = this.#clock.nowMs();
    if (nowMs - verifiedAtMs < this.#verifyAfterMs()) return true;
    const bytes = await this.#store.read(digest, sizeBytes);
    if (
      bytes === undefined ||
      digestOf(bytes, digestAlgorithm(digest)) !== digest
    ) {
      return false;
    }
    await this.#index.noteVerified([digest], nowMs);
    return true;
  }
}
