import { LRUCache } from "lru-cache";
import type {
  BlobVerifier,
  Verification,
} from "../../storage/blob-verifier.ts";
import type { BlobRow } from "../../storage/blob-index.ts";
import type { Digest } from "../../oci/digest.ts";
import type { Clock } from "../../telemetry/clock.ts";

/** A client that wants the same whole blob again within this time doubts what it got. */
const DOUBT_MS = 120_000;
/** Some 300 bytes each. */
const MAX_REMEMBERED = 20_000;
/** A clock that was set back must not keep a blob from being verified. */
const CLOCK_TOLERANCE_MS = 60_000;

/** A whole blob that a client was given, or several parts of it. */
interface Given {
  /** When the first answer since the last verification began. */
  readonly sinceMs: number;
  /** When the last one ended. */
  readonly lastMs: number;
}

/** A body that is cut when its blob turns out to be wrong. */
export interface Breakable {
  break(): void;
}

/**
 * Which stored blobs are verified while they are read.
 *
 * An engine that was given wrong bytes discards them and asks again, so a client that wants a whole
 * blob, or several parts of it, twice within two minutes has it verified; then, for two minutes, it may ask as often as it
 * likes: behind one address there may be a hundred clients. A blob whose file was written to since
 * it was last verified was written to by another process: it is verified first. One that was not
 * verified for long is verified in the background.
 */
export class StoredReads {
  readonly #verifier: Pick<BlobVerifier, "verify" | "verifyLater"> | undefined;
  readonly #clock: Clock;
  readonly #verifyAfterMs: () => number;
  /** By client and digest; monotonic times. */
  readonly #given = new LRUCache<string, Given>({ max: MAX_REMEMBERED });
  /** When the last verification with a good end began. */
  readonly #verified = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
  /** When the bytes that were found right had been written. */
  readonly #right = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
  /** When what was found wrong had been stored. */
  readonly #wrong = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
  readonly #bodies = new Map<Digest, Set<Breakable>>();

  constructor(options: {
    /** Absent: nothing is verified. */
    readonly verifier: Pick<BlobVerifier, "verify" | "verifyLater"> | undefined;
    readonly clock: Clock;
    /** Older verifications are done again at a hit; Infinity: never. May change at any time. */
    readonly verifyAfterMs: () => number;
  }) {
    this.#verifier = options.verifier;
    this.#clock = options.clock;
    this.#verifyAfterMs = options.verifyAfterMs;
  }

  /**
   * The verification of a blob that the client was given whole a moment ago, or whose file another
   * process wrote to; undefined where it need not be waited for.
   *
   * @param writtenAtMs when its bytes were last written, where that is known
   */
  doubt(
    client: string,
    row: BlobRow,
    writtenAtMs: number | undefined,
  ): Promise<Verification> | undefined {
    const nowMs = this.#clock.monotonicMs();
    if (
      this.#verifier === undefined ||
      !(
        this.#isGiven(client, row, nowMs) || this.#isRewritten(row, writtenAtMs)
      )
    ) {
      return undefined;
    }
    return this.#verifier.verify(row).then((verification) => {
      if (verification === "right") {
        this.#verified.set(row.digest, nowMs);
        if (writtenAtMs !== undefined) this.#right.set(row.digest, writtenAtMs);
      }
      return verification;
    });
  }

  /** The bytes of a stored blob are read. */
  noteHit(row: BlobRow, writtenAtMs: number | undefined): void {
    const sinceMs = this.#clock.nowMs() - row.verifiedAtMs;
    if (
      sinceMs >= this.#verifyAfterMs() ||
      sinceMs < -CLOCK_TOLERANCE_MS ||
      this.#isRewritten(row, writtenAtMs)
    ) {
      this.#verifier?.verifyLater(row);
    }
  }

  #isGiven(client: string, { digest }: BlobRow, nowMs: number): boolean {
    const given = this.#given.get(keyOf(client, digest));
    return (
      given !== undefined &&
      nowMs - given.lastMs < DOUBT_MS &&
      !this.#isVerifiedSince(digest, given.sinceMs, nowMs)
    );
  }

  /** A time ahead of the clock is that of another machine, and says nothing. */
  #isRewritten(
    { digest, verifiedAtMs }: BlobRow,
    writtenAtMs: number | undefined,
  ): boolean {
    return (
      writtenAtMs !== undefined &&
      writtenAtMs > verifiedAtMs &&
      writtenAtMs <= this.#clock.nowMs() &&
      this.#right.get(digest) !== writtenAtMs
    );
  }

  /** A client has all of a blob. @param startedAtMs monotonic: when it asked */
  noteGiven(client: string, digest: Digest, startedAtMs: number): void {
    const key = keyOf(client, digest);
    const nowMs = this.#clock.monotonicMs();
    const before = this.#given.get(key);
    const isQuiet =
      before !== undefined &&
      this.#isVerifiedSince(digest, before.sinceMs, nowMs);
    this.#given.set(key, {
      sinceMs: isQuiet ? before.sinceMs : startedAtMs,
      lastMs: nowMs,
    });
  }

  /** @returns what ends it */
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

  /** Whether these bytes were found wrong, and could not be removed. */
  isWrong({ digest, storedAtMs }: BlobRow): boolean {
    return this.#wrong.get(digest) === storedAtMs;
  }

  /**
   * The stored bytes are wrong: what is being read of them is cut, and no more is.
   *
   * @param remove removes them, and returns whether that was possible
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
      nowMs - verifiedMs < DOUBT_MS
    );
  }
}

function keyOf(client: string, digest: Digest): string {
  return `${digest} ${client}`;
}
