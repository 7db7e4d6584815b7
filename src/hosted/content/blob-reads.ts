import {
  BLOB_MEDIA_TYPE,
  type BlobAnswer,
  type BlobDemand,
  isWhole,
} from "../../bodies/blob-answer.ts";
import type { StoredBlobs } from "../../bodies/stored-blobs.ts";
import type { StoredReads } from "../../bodies/stored-reads.ts";
import type { Digest } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { RepositoryKey } from "../../oci/reference.ts";
import type { BlobLinks, BlobRow } from "../../storage/blob-index.ts";
import type { HostedBlobs } from "../../storage/hosted-index.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { HostedBlobHead } from "./content.ts";

interface BlobReadsParts {
  readonly index: Pick<BlobLinks, "getLinkedBlob" | "recallLinkedBlob"> &
    Pick<HostedBlobs, "claimHostedBlob"> &
    Pick<UseIndex, "touchBlob">;
  readonly stored: Pick<StoredBlobs, "open">;
  readonly reads: Pick<StoredReads, "noteReceived">;
  readonly clock: Clock;
}

/** Reads hosted blobs. */
export class BlobReads {
  readonly #parts: BlobReadsParts;

  constructor(parts: BlobReadsParts) {
    this.#parts = parts;
  }

  /**
   * @param isClaimed keeps the blob for the next manifest that names it
   * @throws RegistryError BLOB_UNKNOWN, IndexError
   */
  async stat(
    key: RepositoryKey,
    digest: Digest,
    isClaimed: boolean,
  ): Promise<HostedBlobHead> {
    const row = await this.#find(key, digest, isClaimed);
    this.#parts.index.touchBlob(digest, this.#parts.clock.nowMs());
    return {
      sizeBytes: row.sizeBytes,
      mediaType: row.mediaType ?? BLOB_MEDIA_TYPE,
    };
  }

  /** @throws RegistryError BLOB_UNKNOWN, IndexError */
  async open(
    key: RepositoryKey,
    digest: Digest,
    demand: BlobDemand,
  ): Promise<BlobAnswer> {
    const { stored, reads, clock } = this.#parts;
    const startedAtMs = clock.monotonicMs();
    const row = await this.#find(key, digest, false);
    const answer = await stored.open(row, demand);
    if (answer === undefined) {
      throw new RegistryError("BLOB_UNKNOWN", {
        detail: "the stored bytes are missing or damaged",
      });
    }
    const { client } = demand;
    if (client === undefined || answer.kind === "unsatisfiable") return answer;
    if (answer.kind === "body" && !isWhole(answer.range, answer.sizeBytes)) {
      return answer;
    }
    const onSent = (): void => reads.noteReceived(client, digest, startedAtMs);
    return { ...answer, onSent };
  }

  async #find(
    key: RepositoryKey,
    digest: Digest,
    isClaimed: boolean,
  ): Promise<BlobRow> {
    const { index, clock } = this.#parts;
    const row = isClaimed
      ? await index.claimHostedBlob(key, digest, clock.nowMs())
      : (index.recallLinkedBlob(key, digest) ??
        (await index.getLinkedBlob(key, digest)));
    if (row === undefined) throw new RegistryError("BLOB_UNKNOWN");
    return row;
  }
}
