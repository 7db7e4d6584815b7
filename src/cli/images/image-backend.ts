import type { GarbageReport } from "../../hosted/collection.ts";
import type {
  EvictionReport,
  ImageDetail,
  ImageSummary,
} from "../../images/images.ts";

/** The most images that one query of a list returns. */
export const PAGE = 1_000;

/** The operations of the image commands, on a running mirror or on its storage root. */
export interface ImageBackend {
  /** Bytes of all blobs in the cache. */
  storedBytes(): Promise<number>;
  list(pattern: string | undefined): Promise<readonly ImageSummary[]>;
  /**
   * Resolves to undefined if the image is not stored, as do the methods below. Their `ref` is the full
   * name.
   */
  inspect(ref: string): Promise<ImageDetail | undefined>;
  setPinned(
    ref: string,
    isPinned: boolean,
  ): Promise<{ readonly ref: string; readonly pinned: boolean } | undefined>;
  remove(ref: string): Promise<Removal | undefined>;
  evict(request: {
    readonly toBytes: number | undefined;
    readonly isDryRun: boolean;
  }): Promise<EvictionReport>;
  /** @throws Failed if no mirror runs */
  refresh(ref: string): Promise<Refreshed | undefined>;
  /** @throws Failed with the reason if the image cannot get the tag */
  tag(source: string, target: string): Promise<Tagged>;
  untag(ref: string): Promise<Untagged | undefined>;
  collect(isDryRun: boolean): Promise<GarbageReport>;
  close(): Promise<void>;
}

export interface Tagged {
  readonly source: string;
  readonly target: string;
  readonly digest: string;
}

export interface Untagged {
  readonly ref: string;
  readonly digest: string;
}

export interface Removal {
  readonly ref: string;
  readonly freedBytes: number;
}

export interface Refreshed {
  readonly ref: string;
  readonly digest: string;
  readonly changed: boolean;
}

/** A failure whose message is printed to the operator. */
export class Failed extends Error {
  readonly exitCode: 1 | 2;

  constructor(exitCode: 1 | 2, message: string) {
    super(message);
    this.name = "Failed";
    this.exitCode = exitCode;
  }
}
