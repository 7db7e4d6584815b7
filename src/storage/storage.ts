import type { Digest } from "../oci/digest.ts";
import type { Schedule } from "../telemetry/clock.ts";
import type { MetadataIndex } from "./metadata-index.ts";
import type { DroppedBlob, ScrubFinding, ScrubReport } from "./scrub-report.ts";
import type { TrackedBlobStore } from "./tracked-blob-store.ts";

/** The cached content: bytes, the index of what they are, and the work that keeps both in order. */
export interface Storage {
  readonly blobs: TrackedBlobStore;
  readonly index: MetadataIndex;
  readonly upkeep: StorageUpkeep;
  /**
   * Checks whether writes work now.
   *
   * @throws StorageError; `ETIMEDOUT` if the medium does not answer within a second
   */
  probe(): Promise<void>;
  /** Writes what is buffered, ends the threads, and releases the storage to the next process. */
  close(): Promise<void>;
}

/** The reason why the storage is not used, as text for `/readyz` and the log. */
export type StorageAbsence =
  | "the root was moved, deleted or unmounted"
  | "the lock file was replaced or removed"
  | "the root does not answer"
  | `the root can't be opened: ${string}`;

export interface StorageSpace {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** Recovery after a start, repair, and the limits of the medium. */
export interface StorageUpkeep {
  /** Undefined while the storage is in use. */
  readonly absence: StorageAbsence | undefined;
  /** Whether index and blobs are being compared; the index serves what it has meanwhile. */
  readonly isRecovering: boolean;
  /** Whether the medium ran so full that the reserve of the index was released. */
  readonly isOutOfRoom: boolean;
  /** Resolves when the recovery has ended or was given up. Never rejects. */
  recovered(): Promise<void>;
  /** Returns undefined if the system does not answer, or while the storage is absent. */
  readSpace(): Promise<StorageSpace | undefined>;
  /**
   * Removes abandoned partials beyond a day or `partialsBytes`, and completes writes that an index
   * without room did not record.
   *
   * @throws StorageError, IndexError
   */
  clearLeftovers(partialsBytes: number): Promise<void>;
  /**
   * Compares all blobs and the index while requests are served.
   *
   * @throws StorageError, IndexError, the signal's reason
   */
  scrub(options: ScrubRequest): Promise<ScrubReport>;
  /**
   * Removes a blob whose bytes are wrong, as a scrub would.
   *
   * @returns the finding, with whether the removal succeeded
   */
  dropBlob(
    digest: Digest,
    verdict: "wrong" | "unreadable",
    onDropped: (dropped: DroppedBlob) => void,
  ): Promise<readonly ScrubFinding[]>;
  /** Starts to verify all content in small steps, and repairs what is damaged. */
  startBackgroundScrub(options: BackgroundScrubRequest): {
    stop(): Promise<void>;
  };
}

export interface ScrubRequest {
  readonly isRepair: boolean;
  /** Waits as long as reading so many bytes may take; absent: as fast as possible. */
  readonly pace?: (bytes: number) => Promise<void>;
  readonly signal?: AbortSignal;
  readonly onDropped?: (dropped: DroppedBlob) => void;
}

export interface BackgroundScrubRequest {
  /** The share of all bytes that is read each day; 0 stops it. May change at any time. */
  readonly dailyShare: () => number;
  readonly onFinding: (finding: ScrubFinding) => void;
  readonly onDropped: (dropped: DroppedBlob) => void;
  readonly schedule?: Schedule | undefined;
}
