import type { BlobStore } from "../storage/blob-store.ts";
import type { Verification } from "../storage/blob-verifier.ts";
import type { BlobRecords, BlobRow } from "../storage/blob-index.ts";
import type { UseIndex } from "../storage/metadata-index.ts";
import { resolveRanges } from "../oci/range.ts";
import { cacheStatus } from "../telemetry/cache-status.ts";
import type { Clock } from "../telemetry/clock.ts";
import {
  BLOB_MEDIA_TYPE,
  type BlobAnswer,
  type BlobDemand,
  isWhole,
} from "./blob-answer.ts";
import { StoredBody } from "./stored-body.ts";
import type { StoredReads } from "./stored-reads.ts";

/** How long the head of an answer waits for the verification of a stored blob; then its tail waits. */
const VERIFIED_HEAD_MS = 10_000;

interface StoredBlobsParts {
  readonly store: BlobStore;
  readonly index: Pick<BlobRecords, "forgetBlob"> & Pick<UseIndex, "touchBlob">;
  readonly reads: StoredReads;
  readonly clock: Clock;
}

/** Answers requests for blobs, and ranges of them, from the store. */
export class StoredBlobs {
  readonly #parts: StoredBlobsParts;

  constructor(parts: StoredBlobsParts) {
    this.#parts = parts;
  }

  /** @returns undefined if the bytes are gone, wrong, or cannot be read now */
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
    if (this.#parts.reads.isWrong(row)) return undefined;
    const reader = await this.#parts.store
      .open(digest, sizeBytes)
      .catch(() => "unreadable" as const);
    if (reader === "unreadable") return undefined;
    if (reader === undefined) {
      // The file is gone or truncated, so the row in the index is wrong.
      await this.#parts.index.forgetBlob(digest).catch(() => {});
      return undefined;
    }
    const { writtenAtMs } = reader;
    // podman fetches a zstd:chunked layer in parts, and verifies those.
    const areParts = ranges !== undefined && ranges.length > 1;
    const doubt =
      client !== undefined && (areParts || isWhole(range, sizeBytes))
        ? await this.#verifyIfDoubtful(client, row, writtenAtMs)
        : {};
    if (doubt === "wrong") {
      await reader.close();
      return undefined;
    }
    this.#parts.index.touchBlob(digest, this.#parts.clock.nowMs());
    this.#parts.reads.noteHit(row, writtenAtMs);
    const body = new StoredBody(
      reader,
      range?.first ?? 0,
      range === undefined ? sizeBytes : range.last + 1,
      // An unreadable blob is fetched again when the engine requests the rest.
      () => void this.#parts.index.forgetBlob(digest).catch(() => {}),
      doubt.verification,
    );
    body.onClose = this.#parts.reads.follow(digest, body);
    const answer = {
      sizeBytes,
      mediaType: row.mediaType ?? BLOB_MEDIA_TYPE,
      status,
      ageMs: this.#parts.clock.nowMs() - row.storedAtMs,
      source: "cache" as const,
      body,
    };
    return areParts
      ? { kind: "parts", ranges, ...answer }
      : { kind: "body", range, ...answer };
  }

  /**
   * Verifies a blob that the client received a moment ago, or whose file another process wrote to.
   *
   * @returns "wrong" if the bytes must not be sent, else the verification if it still runs
   */
  async #verifyIfDoubtful(
    client: string,
    row: BlobRow,
    writtenAtMs: number | undefined,
  ): Promise<"wrong" | { readonly verification?: Promise<Verification> }> {
    const doubt = this.#parts.reads.verifyIfDoubtful(client, row, writtenAtMs);
    if (doubt === undefined) return {};
    const { promise: late, resolve } = Promise.withResolvers<"late">();
    const timer = setTimeout(() => resolve("late"), VERIFIED_HEAD_MS);
    const ended = await Promise.race([doubt, late]);
    clearTimeout(timer);
    if (ended === "wrong") return ended;
    return ended === "late" ? { verification: doubt } : {};
  }
}
