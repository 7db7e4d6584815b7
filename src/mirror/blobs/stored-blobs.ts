import type { BlobStore } from "../../storage/blob-store.ts";
import type { Verification } from "../../storage/blob-verifier.ts";
import type { BlobRecords, BlobRow } from "../../storage/blob-index.ts";
import type { UseIndex } from "../../storage/metadata-index.ts";
import { resolveRanges } from "../../oci/range.ts";
import { cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import {
  BLOB_MEDIA_TYPE,
  type BlobAnswer,
  type BlobDemand,
  isWhole,
} from "./blob-answer.ts";
import { StoredBody } from "./stored-body.ts";
import type { StoredReads } from "./stored-reads.ts";

/** A head waits so long for a stored blob to be verified; then its last bytes do. */
const VERIFIED_HEAD_MS = 10_000;

/** Blobs from the store, and ranges of them. */
export class StoredBlobs {
  readonly #store: BlobStore;
  readonly #index: Pick<BlobRecords, "forgetBlob"> &
    Pick<UseIndex, "touchBlob">;
  readonly #reads: StoredReads;
  readonly #clock: Clock;

  constructor(options: {
    readonly store: BlobStore;
    readonly index: Pick<BlobRecords, "forgetBlob"> &
      Pick<UseIndex, "touchBlob">;
    readonly reads: StoredReads;
    readonly clock: Clock;
  }) {
    this.#store = options.store;
    this.#index = options.index;
    this.#reads = options.reads;
    this.#clock = options.clock;
  }

  /** @returns undefined where the bytes are gone, wrong, or can't be read now */
  async open(
    row: BlobRow,
    { ranges: specs, client }: BlobDemand,
  ): Promise<BlobAnswer | undefined> {
    const { digest, sizeBytes } = row;
    const ranges = specs && resolveRanges(specs, sizeBytes);
    const range = ranges?.[0];
    const status = cacheStatus.hit();
    if (ranges?.length === 0) {
      return { kind: "unsatisfiable", sizeBytes, status };
    }
    if (this.#reads.isWrong(row)) return undefined;
    const reader = await this.#store
      .open(digest, sizeBytes)
      .catch(() => "unreadable" as const);
    if (reader === "unreadable") return undefined;
    if (reader === undefined) {
      // The file is gone or was cut: what the index says of it is worth nothing.
      await this.#index.forgetBlob(digest).catch(() => {});
      return undefined;
    }
    const { writtenAtMs } = reader;
    // podman takes a zstd:chunked layer in parts, and compares those.
    const areParts = ranges !== undefined && ranges.length > 1;
    const doubt =
      client !== undefined && (areParts || isWhole(range, sizeBytes))
        ? await this.#awaitDoubt(client, row, writtenAtMs)
        : {};
    if (doubt === "wrong") {
      await reader.close();
      return undefined;
    }
    this.#index.touchBlob(digest, this.#clock.nowMs());
    this.#reads.noteHit(row, writtenAtMs);
    const body = new StoredBody(
      reader,
      range?.first ?? 0,
      range === undefined ? sizeBytes : range.last + 1,
      // What can't be read is fetched when the engine asks for the rest.
      () => void this.#index.forgetBlob(digest).catch(() => {}),
      doubt.verification,
    );
    body.onClose = this.#reads.follow(digest, body);
    const answer = {
      sizeBytes,
      mediaType: row.mediaType ?? BLOB_MEDIA_TYPE,
      status,
      ageMs: this.#clock.nowMs() - row.storedAtMs,
      source: "cache" as const,
      body,
    };
    return areParts
      ? { kind: "parts", ranges, ...answer }
      : { kind: "body", range, ...answer };
  }

  /**
   * Has a blob verified that the client was given a moment ago, or that another process wrote to.
   *
   * @returns "wrong" where the bytes must not be given, else what is left to wait for
   */
  async #awaitDoubt(
    client: string,
    row: BlobRow,
    writtenAtMs: number | undefined,
  ): Promise<"wrong" | { readonly verification?: Promise<Verification> }> {
    const doubt = this.#reads.doubt(client, row, writtenAtMs);
    if (doubt === undefined) return {};
    const { promise: late, resolve } = Promise.withResolvers<"late">();
    const timer = setTimeout(() => resolve("late"), VERIFIED_HEAD_MS);
    const ended = await Promise.race([doubt, late]);
    clearTimeout(timer);
    if (ended === "wrong") return ended;
    return ended === "late" ? { verification: doubt } : {};
  }
}
