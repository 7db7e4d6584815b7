import type { Digest } from "../oci/digest.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { BlobStore, BlobVerdict } from "./blob-store.ts";
import type { BlobRecords, BlobRow } from "./blob-index.ts";

/**
 * - `right`: the bytes are those of the digest
 * - `wrong`: they are not, or can't be read; they were dropped, or could not be removed
 * - `unknown`: nothing can be said of them now, or the blob is gone
 */
export type Verification = "right" | "wrong" | "unknown";

/** Of either kind. Beyond it a blob is verified when it is asked for again. */
const MAX_WAITING = 1_000;
/** Verified side by side because a client waits: the thread for hashes is one, and downloads wait for it too. */
const MAX_URGENT = 2;

export interface BlobVerifierOptions {
  readonly blobs: Pick<BlobStore, "verify">;
  readonly index: Pick<BlobRecords, "getBlob" | "noteVerified">;
  readonly clock: Clock;
  /** Takes the bytes and the row of a blob away, as far as that can be done. */
  readonly drop: (
    row: BlobRow,
    verdict: Exclude<BlobVerdict, "right">,
  ) => Promise<void>;
  readonly onVerified: (verification: Verification) => void;
}

/** A verification that is waited for or runs. */
interface Job {
  readonly row: BlobRow;
  readonly done: PromiseWithResolvers<Verification>;
}

/**
 * Compares stored blobs with their digests while they are served: those that a client waits for
 * first, a few at a time; those that were not verified for long in the background, one at a time.
 * However many ask, a blob is read once.
 */
export class BlobVerifier {
  readonly #options: BlobVerifierOptions;
  readonly #abort = new AbortController();
  readonly #jobs = new Map<Digest, Job>();
  /** Not started yet, in their order. */
  readonly #waiting = new Map<Digest, Job>();
  readonly #urgent = new Map<Digest, Job>();
  readonly #running = new Set<Promise<void>>();

  constructor(options: BlobVerifierOptions) {
    this.#options = options;
  }

  /** Verifies a blob for a client that waits. Never rejects. */
  verify(row: BlobRow): Promise<Verification> {
    const { digest } = row;
    if (this.#urgent.size >= MAX_WAITING && !this.#jobs.has(digest)) {
      return Promise.resolve("unknown");
    }
    const job = this.#jobs.get(digest) ?? this.#add(row);
    if (this.#waiting.delete(digest)) this.#urgent.set(digest, job);
    this.#startNext();
    return job.done.promise;
  }

  /** Verifies a blob in the background. */
  verifyLater(row: BlobRow): void {
    if (this.#waiting.size >= MAX_WAITING || this.#jobs.has(row.digest)) return;
    this.#add(row);
    this.#startNext();
  }

  /** Starts no more, and ends those that run. */
  async stop(): Promise<void> {
    this.#abort.abort(new Error("the verifier was stopped"));
    for (const job of [...this.#waiting.values(), ...this.#urgent.values()]) {
      this.#jobs.delete(job.row.digest);
      job.done.resolve("unknown");
    }
    this.#waiting.clear();
    this.#urgent.clear();
    await Promise.all(this.#running);
  }

  #add(row: BlobRow): Job {
    const job: Job = { row, done: Promise.withResolvers() };
    if (this.#abort.signal.aborted) {
      job.done.resolve("unknown");
      return job;
    }
    this.#jobs.set(row.digest, job);
    this.#waiting.set(row.digest, job);
    return job;
  }

  #startNext(): void {
    while (this.#running.size < MAX_URGENT) {
      const [urgent] = this.#urgent.values();
      const [waiting] = this.#running.size === 0 ? this.#waiting.values() : [];
      const job = urgent ?? waiting;
      if (job === undefined) return;
      this.#urgent.delete(job.row.digest);
      this.#waiting.delete(job.row.digest);
      const running = this.#run(job).finally(() => {
        this.#running.delete(running);
        this.#startNext();
      });
      this.#running.add(running);
    }
  }

  async #run({ row, done }: Job): Promise<void> {
    const verification = await this.#judge(row).catch(() => "unknown" as const);
    this.#jobs.delete(row.digest);
    this.#options.onVerified(verification);
    done.resolve(verification);
  }

  async #judge(row: BlobRow): Promise<Verification> {
    const { digest, sizeBytes } = row;
    const { blobs, index, clock, drop } = this.#options;
    const startedAtMs = clock.nowMs();
    const verdict = await blobs.verify(digest, sizeBytes, this.#abort.signal);
    if (verdict === undefined) return "unknown";
    if (verdict === "right") {
      // A client waits for the verdict, and not for an index that is locked. Else the next hit verifies.
      void index.noteVerified([digest], startedAtMs).catch(() => {});
      return "right";
    }
    // Bytes that were fetched meanwhile are others; the client's reader may still have those before.
    const now = await index.getBlob(digest).catch(() => row);
    // Where they can't be dropped, what drops them has noted that they are wrong.
    if (now?.storedAtMs === row.storedAtMs) {
      await drop(row, verdict).catch(() => {});
    }
    return "wrong";
  }
}
