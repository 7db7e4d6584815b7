import { LRUCache } from "lru-cache";
import type { BlobVerifier, Verification } from "../cache/blob-verifier.ts";
import type { BlobRow } from "../cache/metadata-index.ts";
import type { Digest } from "../oci/digest.ts";
import type { Clock } from "../telemetry/clock.ts";

/** A client that wants the same whole blob again within this time doubts what it got. */
const DOUBT_MS = 120_000;
/** Some 300 bytes each. */
const MAX_REMEMBERED = 20_000;
/** A clock that was set back must not keep a blob from being verified. */
const CLOCK_TOLERANCE_MS = 60_000;

/** A whole blob that a client was given. */
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
 * blob twice within two minutes has it verified; then, for two minutes, it may ask as often as it
 * likes: behind one address there may be a hundred clients. A blob that was not verified for long
 * is verified in the background.
 */
export class StoredReads {
  readonly #verifier: Pick<BlobVerifier, "verify" | "verifyLater"> | undefined;
  readonly #clock: Clock;
  readonly #verifyAfterMs: () => number;
  /** By client and digest; monotonic times. */
  readonly #given = new LRUCache<string, Given>({ max: MAX_REMEMBERED });
  /** When the last verification with a good end began. */
  readonly #verified = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
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
   * The verification of a blob that the client was given whole a moment ago; undefined where it
   * need not be waited for.
   */
  doubt(client: string, row: BlobRow): Promise<Verification> | undefined {
    const given = this.#given.get(keyOf(client, row.digest));
    if (given === undefined || this.#verifier === undefined) return undefined;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - given.lastMs >= DOUBT_MS) return undefined;
    if (this.#isVerifiedSince(row.digest, given.sinceMs, nowMs)) {
      return undefined;
    }
    return this.#verifier.verify(row).then((verification) => {
      if (verification === "right") this.#verified.set(row.digest, nowMs);
      return verification;
    });
  }

  /** The bytes of a stored blob are read. */
  noteHit(row: BlobRow): void {
    const sinceMs = this.#clock.nowMs() - row.verifiedAtMs;
    if (sinceMs >= this.#verifyAfterMs() || sinceMs < -CLOCK_TOLERANCE_MS) {
      this.#verifier?.verifyLater(row);
    }
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
