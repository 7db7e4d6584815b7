import {
  type Digest,
  digestAlgorithm,
  type DigestAlgorithm,
  possibleSize,
} from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { BlobLinks, BlobRecords } from "../../storage/blob-index.ts";
import type {
  HostedBlobs,
  HostedManifests,
  QuotaCondition,
} from "../../storage/hosted-index.ts";
import type { TrackedBlobStore } from "../../storage/tracked-blob-store.ts";
import type { Room } from "../../retention/room.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { EventSink, HostedRepository, Sender } from "../hosted.ts";
import { overQuota } from "../quota-refusal.ts";
import { mountBlob, type MountRequest } from "./mount-blob.ts";
import {
  UploadSessions,
  type UploadSessionsOptions,
} from "./upload-sessions.ts";
import {
  checkRange,
  type ChunkRange,
  receiveBody,
  type ReceiveParts,
  WrongLength,
} from "./receive-body.ts";
import type { UploadBody } from "./upload-body.ts";
import {
  asRegistryError,
  isOutOfSpace,
  unknownUpload,
  UploadRefusal,
} from "./upload-refusal.ts";
import type { UploadSession } from "./upload-session.ts";

export interface UploadsOptions extends Omit<
  UploadSessionsOptions,
  "blobs" | "index" | "metrics"
> {
  readonly blobs: TrackedBlobStore;
  readonly index: UploadSessionsOptions["index"] &
    Pick<
      HostedBlobs,
      | "beginHostedWrite"
      | "listBlobRepositories"
      | "mountHostedBlob"
      | "recordHostedBlob"
    > &
    Pick<HostedManifests, "listHostedRegistries"> &
    Pick<BlobLinks, "getLinkedBlob"> &
    Pick<BlobRecords, "getBlob">;
  readonly metrics: UploadSessionsOptions["metrics"] &
    Pick<Metrics, "pushedBytes">;
  /** Absent: the room is not limited before the disk is full. */
  readonly room?: Pick<Room, "reserve"> | undefined;
  readonly onEvent: EventSink;
}

/** A request to an upload, with its body. */
export interface UploadRequest {
  readonly repository: HostedRepository;
  readonly sender: Sender;
  readonly body: UploadBody;
  /** Absent: the body follows the bytes that are stored. */
  readonly range: ChunkRange | undefined;
}

/** The state of an open upload. */
export interface UploadProgress {
  readonly id: string;
  readonly writtenBytes: number;
}

export type Started =
  | ({ readonly kind: "open" } & UploadProgress)
  /** The repository has the blob. */
  | { readonly kind: "stored"; readonly digest: Digest };

/** Receives blobs that clients push. */
export class Uploads {
  readonly #options: UploadsOptions;
  readonly #open: UploadSessions;
  readonly #receiving: ReceiveParts;

  constructor(options: UploadsOptions) {
    this.#options = options;
    this.#open = new UploadSessions(options);
    const { index, room, metrics } = options;
    this.#receiving = {
      index,
      room,
      reserved: this.#open.reserved,
      onReceived: (registry, bytes) =>
        metrics.pushedBytes.inc({ registry }, bytes),
    };
  }

  /** Returns the bytes of a registry's open uploads, which count towards its quota. */
  reservedBytes(registry: string): number {
    return this.#open.reserved.of(registry);
  }

  /** Starts the upkeep; called when the storage can be used. */
  start(): void {
    this.#open.start();
  }

  /** Keeps the bytes of all uploads; requests must have ended. */
  stop(): Promise<void> {
    return this.#open.stop();
  }

  /**
   * Mounts a blob if possible, otherwise starts an upload. With `digest` the body is the whole blob.
   *
   * @throws RegistryError
   */
  async begin(
    request: UploadRequest,
    options: {
      readonly digest: Digest | undefined;
      readonly mount: MountRequest | undefined;
      readonly algorithm: DigestAlgorithm;
    },
  ): Promise<Started> {
    const { repository, body } = request;
    const { digest, mount, algorithm } = options;
    try {
      if (mount !== undefined && (await this.#mount(request, mount))) {
        return { kind: "stored", digest: mount.digest };
      }
      // A client that only announces the digest sends the bytes later.
      if (digest === undefined || isMissing(body, digest)) {
        const session = await this.#open.create(
          repository.key,
          algorithm,
          true,
        );
        return { kind: "open", id: session.id, writtenBytes: 0 };
      }
      await this.#receiveWhole(request, digest);
      return { kind: "stored", digest };
    } catch (error) {
      throw asRegistryError(error) ?? error;
    }
  }

  /**
   * Appends a chunk.
   *
   * @throws UploadRefusal; RegistryError if the upload does not exist
   */
  append(id: string, request: UploadRequest): Promise<UploadProgress> {
    return this.#use(id, request, async (session) => {
      this.#open.open(session);
      checkRange(session, request.body, request.range);
      await this.#receive(session, request, false);
      return { id: session.id, writtenBytes: session.writtenBytes };
    });
  }

  /**
   * Appends the last chunk, if any, and publishes the blob.
   *
   * @throws UploadRefusal; RegistryError if the upload does not exist
   */
  finish(id: string, request: UploadRequest, digest: Digest): Promise<void> {
    return this.#use(id, request, async (session) => {
      this.#open.open(session);
      checkRange(session, request.body, request.range);
      await this.#receive(session, request, session.writtenBytes === 0);
      await this.#publish(session, request, digest);
    });
  }

  /** @throws RegistryError if the upload does not exist */
  async status({ key }: HostedRepository, id: string): Promise<UploadProgress> {
    try {
      const session = await this.#open.find(key, id);
      return { id: session.id, writtenBytes: session.writtenBytes };
    } catch (error) {
      throw asRegistryError(error) ?? error;
    }
  }

  /** Ends an upload and removes its bytes. @throws RegistryError if it does not exist */
  async cancel({ key }: HostedRepository, id: string): Promise<void> {
    try {
      const session = await this.#open.find(key, id);
      await session.cancel(() => {
        // The request that it waited for may have completed the upload.
        if (session.hasEnded) throw unknownUpload();
        return this.#open.drop(session);
      });
    } catch (error) {
      throw asRegistryError(error) ?? error;
    }
  }

  /** Runs a request of an upload. A failure of the request itself ends the upload. */
  async #use<T>(
    id: string,
    { repository, body }: UploadRequest,
    work: (session: UploadSession) => Promise<T>,
  ): Promise<T> {
    let session: UploadSession | undefined;
    try {
      const found = await this.#open.find(repository.key, id);
      session = found;
      return await found.use(body, () => work(found));
    } catch (error) {
      const known = asRegistryError(error);
      if (known === undefined || session === undefined) throw known ?? error;
      throw new UploadRefusal(
        known,
        session.hasEnded ? undefined : session.writtenBytes,
      );
    }
  }

  async #receive(
    session: UploadSession,
    { repository, body, range }: UploadRequest,
    isWhole: boolean,
  ): Promise<void> {
    try {
      await receiveBody(this.#receiving, repository, session, body, {
        range,
        isWhole,
      });
    } catch (error) {
      if (error instanceof WrongLength) {
        await this.#open.drop(session);
        throw new RegistryError("SIZE_INVALID", { cause: error });
      }
      // The client does not retry, and the bytes would use space or quota until they expire.
      if (isOutOfSpace(error) || error instanceof RegistryError) {
        await this.#open.drop(session);
      } else {
        await this.#settleFault(session, error);
      }
      throw error;
    } finally {
      this.#open.noteBytes(session);
    }
  }

  /** Closes the file after a failed write: the next request reads its bytes again. */
  async #settleFault(session: UploadSession, error: unknown): Promise<void> {
    if (asRegistryError(error)?.status === 503) await session.suspend();
  }

  /** Receives a blob in one request; no bytes remain if it fails. */
  async #receiveWhole(request: UploadRequest, digest: Digest): Promise<void> {
    const algorithm = digestAlgorithm(digest);
    const { key } = request.repository;
    const session = await this.#open.create(key, algorithm, false);
    try {
      await session.use(request.body, async () => {
        checkRange(session, request.body, request.range);
        await this.#receive(session, request, true);
        await this.#publish(session, request, digest);
      });
    } finally {
      if (!session.hasEnded) await this.#open.drop(session);
    }
  }

  /**
   * Verifies the digest, publishes the bytes and writes the row. The digest is held in between, so
   * that no bytes are removed whose row is about to be written.
   *
   * @throws RegistryError, StorageError, IndexError
   */
  async #publish(
    session: UploadSession,
    { repository, sender }: UploadRequest,
    digest: Digest,
  ): Promise<void> {
    const { blobs, index, clock, onEvent } = this.#options;
    const { key } = repository;
    let found: Digest;
    try {
      found = await session.digestLike(digest);
    } catch (error) {
      await session.suspend();
      throw error;
    }
    if (found !== digest) {
      await this.#open.drop(session);
      throw new RegistryError("DIGEST_INVALID", {
        detail:
          "got bytes with another digest; expected the digest of the request",
      });
    }
    const sizeBytes = session.writtenBytes;
    const quota = this.#quotaFor(repository);
    const release = await blobs.hold(digest);
    let outcome: "stored" | "over-quota" | undefined;
    let isPublishing = false;
    try {
      await index.beginHostedWrite(key, { digest, sizeBytes });
      isPublishing = true;
      await session.commit(digest);
      outcome = await index.recordHostedBlob(
        key,
        { digest, sizeBytes, storedAtMs: clock.nowMs() },
        quota,
      );
    } finally {
      release();
      if (isPublishing) this.#open.end(session);
      if (isPublishing && outcome !== "stored") {
        await this.#removeUnrecorded(digest);
      }
    }
    if (outcome === "over-quota") throw overQuota(key.upstream);
    onEvent({
      action: "push",
      key,
      digest,
      tag: undefined,
      mediaType: undefined,
      sizeBytes,
      from: undefined,
      sender,
    });
  }

  /** Removes published bytes without a row, unless another request reads or writes that blob. */
  async #removeUnrecorded(digest: Digest): Promise<void> {
    const { blobs, index } = this.#options;
    const claim = blobs.claim([digest]);
    try {
      if (claim.keys.length === 0) return;
      if ((await index.getBlob(digest)) === undefined) {
        await blobs.remove(digest);
      }
    } catch {
      // The request reports the failing storage; a scrub finds the bytes.
    } finally {
      claim.release();
    }
  }

  async #mount(
    { repository, sender }: UploadRequest,
    mount: MountRequest,
  ): Promise<boolean> {
    const { key } = repository;
    const quota = this.#quotaFor(repository);
    const mounted = await mountBlob(this.#options, key, mount, quota);
    if (mounted.kind === "over-quota") throw overQuota(key.upstream);
    if (mounted.kind === "absent") return false;
    this.#options.onEvent({
      action: "mount",
      key,
      digest: mount.digest,
      tag: undefined,
      mediaType: undefined,
      sizeBytes: mounted.sizeBytes,
      from: mounted.from,
      sender,
    });
    return true;
  }

  /** The bytes of an upload that is being recorded are published, and no longer reserved. */
  #quotaFor({ key, config }: HostedRepository): QuotaCondition {
    const { reserved } = this.#open;
    return {
      maxBytes: config.quotaBytes,
      get reservedBytes() {
        return reserved.of(key.upstream);
      },
    };
  }
}

/** Returns whether a body is empty although the digest is not that of an empty blob. */
function isMissing({ lengthBytes }: UploadBody, digest: Digest): boolean {
  return lengthBytes === 0 && possibleSize(digest, 0) === undefined;
}
