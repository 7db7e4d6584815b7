import { LRUCache } from "lru-cache";
import type { BlobVerifier, Verification } from "../storage/blob-verifier.ts";
import type { BlobRow } from "../storage/blob-index.ts";
import type { Digest } from "../oci/digest.ts";
import type { Clock } from "../telemetry/clock.ts";

/** A client that requests the same whole blob again within this time may have received wrong bytes. */
const REPEAT_MS = 120_000;
/** About 300 bytes each. */
const MAX_REMEMBERED = 20_000;
/** A clock that was set back must not prevent verification. */
const CLOCK_TOLERANCE_MS = 60_000;

/** A client received a whole blob, or several parts of it. */
interface Receipt {
  /** When the first answer since the last verification began. */
  readonly sinceMs: number;
  /** When the last one ended. */
  readonly lastMs: number;
}

/** A body that is cut if its blob is found to be wrong. */
export interface Breakable {
  break(): void;
}

interface StoredReadsParts {
  /** Undefined: nothing is verified. */
  readonly verifier: Pick<BlobVerifier, "verify" | "verifyLater"> | undefined;
  readonly clock: Clock;
  /** Age after which a hit has a blob verified again; Infinity: never. May change at any time. */
  readonly verifyAfterMs: () => number;
}

/**
 * Decides which stored blobs are verified because they are read.
 *
 * An engine that received wrong bytes discards them and requests them again. So a second request for a
 * whole blob, or for several parts of it, from the same client within two minutes has the blob
 * verified. For the next two minutes requests from that address need no verification, because a
 * hundred clients may share one address. A blob whose file was modified after its last verification
 * was modified by another process: it is verified first. A blob whose last verification is old is
 * verified in the background.
 */
export class StoredReads {
  readonly #parts: StoredReadsParts;
  /** By client and digest; monotonic times. */
  readonly #received = new LRUCache<string, Receipt>({ max: MAX_REMEMBERED });
  /** When the last successful verification began. */
  readonly #verified = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
  /** The write times of the bytes that were found right. */
  readonly #right = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
  /** The storage times of the blobs that were found wrong. */
  readonly #wrong = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
  readonly #bodies = new Map<Digest, Set<Breakable>>();

  constructor(parts: StoredReadsParts) {
    this.#parts = parts;
  }

  /**
   * Verifies a blob that the client received completely a moment ago, or whose file another process
   * wrote to. Returns undefined if no verification is needed.
   *
   * @param writtenAtMs when the file was last written, if known
   */
  verifyIfDoubtful(
    client: string,
    row: BlobRow,
    writtenAtMs: number | undefined,
  ): Promise<Verification> | undefined {
    const nowMs = this.#parts.clock.monotonicMs();
    if (
      this.#parts.verifier === undefined ||
      !(
        this.#hasReceived(client, row, nowMs) ||
        this.#isRewritten(row, writtenAtMs)
      )
    ) {
      return undefined;
    }
    return this.#parts.verifier.verify(row).then((verification) => {
      if (verification === "right") {
        this.#verified.set(row.digest, nowMs);
        if (writtenAtMs !== undefined) this.#right.set(row.digest, writtenAtMs);
      }
      return verification;
    });
  }

  /** Has a blob verified in the background if it is read and its last verification is old. */
  noteHit(row: BlobRow, writtenAtMs: number | undefined): void {
    const sinceMs = this.#parts.clock.nowMs() - row.verifiedAtMs;
    if (
      sinceMs >= this.#parts.verifyAfterMs() ||
      sinceMs < -CLOCK_TOLERANCE_MS ||
      this.#isRewritten(row, writtenAtMs)
    ) {
      this.#parts.verifier?.verifyLater(row);
    }
  }

  #hasReceived(client: string, { digest }: BlobRow, nowMs: number): boolean {
    const receipt = this.#received.get(keyOf(client, digest));
    return (
      receipt !== undefined &&
      nowMs - receipt.lastMs < REPEAT_MS &&
      !this.#isVerifiedSince(digest, receipt.sinceMs, nowMs)
    );
  }

  /** A write time in the future is from the clock of another machine, and proves nothing. */
  #isRewritten(
    { digest, verifiedAtMs }: BlobRow,
    writtenAtMs: number | undefined,
  ): boolean {
    return (
      writtenAtMs !== undefined &&
      writtenAtMs > verifiedAtMs &&
      writtenAtMs <= this.#parts.clock.nowMs() &&
      this.#right.get(digest) !== writtenAtMs
    );
  }

  /** Remembers that a client received a whole blob. @param startedAtMs when its request began; monotonic */
  noteReceived(client: string, digest: Digest, startedAtMs: number): void {
    const key = keyOf(client, digest);
    const nowMs = this.#parts.clock.monotonicMs();
    const before = this.#received.get(key);
    const isQuiet =
      before !== undefined &&
      this.#isVerifiedSince(digest, before.sinceMs, nowMs);
    this.#received.set(key, {
      sinceMs: isQuiet ? before.sinceMs : startedAtMs,
      lastMs: nowMs,
    });
  }

  /** Cuts a body if its blob is found to be wrong. @returns a function that ends this */
  follow(digest: Digest, body: Breakable): () => void {
    const bodies = this.#bodies.get(digest) ?? new Set();
    bodies.add(body);
    this.#bodies.set(digest, bodies);
    return () => {
      bodies.delete(body);
      if (bodies.size === 0 && this.#bodies.get(digest) === bodies) {
        this.#bodies.delete(digest);
      }
    };
  }

  /** Whether these bytes were found wrong and could not be removed. */
  isWrong({ digest, storedAtMs }: BlobRow): boolean {
    return this.#wrong.get(digest) === storedAtMs;
  }

  /**
   * Handles wrong stored bytes: cuts the bodies that read them, and serves them no more.
   *
   * @param remove removes the bytes, and returns whether that succeeded
   */
  async dropWrong(
    { digest, storedAtMs }: BlobRow,
    remove: () => Promise<boolean>,
  ): Promise<void> {
    this.#wrong.set(digest, storedAtMs);
    this.#verified.delete(digest);
    const bodies = this.#bodies.get(digest);
    this.#bodies.delete(digest);
    for (const body of bodies ?? []) body.break();
    if (await remove()) this.#wrong.delete(digest);
  }

  #isVerifiedSince(digest: Digest, sinceMs: number, nowMs: number): boolean {
    const verifiedMs = this.#verified.get(digest);
    return (
      verifiedMs !== undefined &&
      verifiedMs >= sinceMs &&
      nowMs - verifiedMs < REPEAT_MS
    );
  }
}

function keyOf(client: string, digest: Digest): string {
  return `${digest} ${client}`;
}
