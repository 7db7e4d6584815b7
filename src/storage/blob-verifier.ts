import type { Digest } from "../oci/digest.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { BlobStore, BlobVerdict } from "./blob-store.ts";
import type { BlobRecords, BlobRow } from "./blob-index.ts";

/**
 * The result of a verification.
 *
 * - `right`: the bytes match the digest
 * - `wrong`: they do not match or can't be read; they were dropped, or could not be removed
 * - `unknown`: they can't be judged now, or the blob is absent
 */
export type Verification = "right" | "wrong" | "unknown";

/** The limit of each queue. Beyond it a blob is verified when it is requested again. */
const MAX_WAITING = 1_000;
/** Concurrent verifications that clients wait for: there is one thread for hashes, which downloads need too. */
const MAX_URGENT = 2;

export interface BlobVerifierOptions {
  readonly blobs: Pick<BlobStore, "verify">;
  readonly index: Pick<BlobRecords, "getBlob" | "noteVerified">;
  readonly clock: Clock;
  /** Removes the bytes and the row of a blob, as far as possible. */
  readonly drop: (
    row: BlobRow,
    verdict: Exclude<BlobVerdict, "right">,
  ) => Promise<void>;
  readonly onVerified: (verification: Verification) => void;
}

/** A queued or running verification. */
interface Job {
  readonly row: BlobRow;
  readonly done: PromiseWithResolvers<Verification>;
}

/**
 * Compares stored blobs with their digests while they are served. Blobs that a client waits for come
 * first, two at a time; those that were last verified long ago follow in the background, one at a
 * time. A blob is read once for any number of callers.
 */
export class BlobVerifier {
  readonly #options: BlobVerifierOptions;
  readonly #abort = new AbortController();
  readonly #jobs = new Map<Digest, Job>();
  /** Background jobs that have not started, in order. */
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

  /** Starts no further verification and ends the running ones. */
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
      // The client must not wait for a locked index too. Without the note the next hit verifies again.
      void index.noteVerified([digest], startedAtMs).catch(() => {});
      return "right";
    }
    // Bytes that were fetched meanwhile are different ones; the client may still read the previous ones.
    const now = await index.getBlob(digest).catch(() => row);
    // If they can't be removed, `drop` has recorded that they are wrong.
    if (now?.storedAtMs === row.storedAtMs) {
      await drop(row, verdict).catch(() => {});
    }
    return "wrong";
  }
}
