import assert from "node:assert/strict";
import { Worker } from "node:worker_threads";
import type { Digest, DigestAlgorithm } from "../../../oci/digest.ts";
import { StorageError } from "../../blob-store.ts";
import type { ContentHash } from "../../content-hash.ts";
import type { HashReply, HashRequest, HashWorkerData } from "./hash-worker.ts";
import type { SharedFile } from "./shared-file.ts";
import type { StoredHash } from "./stored-hash.ts";

/**
 * Bytes of `update` that may be queued for the worker. Beyond it the main thread waits, which costs it
 * no more than hashing by itself and keeps memory bounded.
 */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;
/** A worker without progress for this long while the main thread waits for it is terminated. */
const STALLED_AFTER_MS = 5_000;

/** Hashes computed by one worker thread, which starts with the first of them. */
export interface BackgroundHashes {
  /**
   * Opens a hash of a file, or of passed bytes only if `file` is absent.
   *
   * @param file retained until the hash is closed and the worker has stopped reading it
   * @throws StorageError if no thread can be started
   */
  open(algorithm: DigestAlgorithm, file: SharedFile | undefined): StoredHash;
  /** Ends the worker; pending digests fail. */
  close(): Promise<void>;
}

export function createBackgroundHashes(
  startWorker: (data: HashWorkerData) => Worker = startHashWorker,
): BackgroundHashes {
  let current: WorkerSession | undefined;
  const ending: Promise<void>[] = [];
  let isClosed = false;
  const session = (): WorkerSession => {
    if (isClosed) throw new StorageError("hash", "ECLOSED");
    if (current === undefined || current.isGone) {
      // The file descriptors of a dead worker are released when its thread has ended.
      if (current !== undefined) ending.push(current.terminate());
      current = new WorkerSession(startWorker);
    }
    return current;
  };
  return {
    open(algorithm, file) {
      return new BackgroundHash(session, algorithm, file);
    },
    async close() {
      isClosed = true;
      await Promise.all([...ending, current?.terminate()]);
    },
  };
}

/** Starts the worker from the sources (`.ts`) or the build (`.js`): the compiler rewrites imports, but not URLs. */
export function startHashWorker(data: HashWorkerData): Worker {
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  return new Worker(new URL(`./hash-worker${extension}`, import.meta.url), {
    name: "hash",
    workerData: data,
    // The options of the process may not be valid for a thread that is started from a file.
    execArgv: [],
    // The thread holds a few objects and one buffer; a heap of the default size would grow needlessly.
    resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 2 },
  });
}

interface Waiter {
  readonly resolve: (digest: Digest) => void;
  readonly reject: (error: StorageError) => void;
}

/** One run of the worker: its pending digests and the files that it may be reading. */
class WorkerSession {
  isGone = false;
  readonly #worker: Worker;
  readonly #doneBytes = new Int32Array(new SharedArrayBuffer(4));
  readonly #waiters = new Map<number, Waiter>();
  readonly #files = new Map<number, SharedFile>();
  #lastNumber = 0;
  #sentBytes = 0;
  readonly #releases = new Set<Promise<void>>();

  constructor(startWorker: (data: HashWorkerData) => Worker) {
    try {
      this.#worker = startWorker({ doneBytes: this.#doneBytes.buffer });
    } catch (error) {
      throw new StorageError("hash", "EAGAIN", { cause: error });
    }
    this.#worker.unref();
    this.#worker.on("message", (reply: HashReply) => this.#receive(reply));
    this.#worker.on("error", (error) => this.#end(error));
    this.#worker.on("exit", () => {
      this.#end(undefined);
      void this.#releaseFiles();
    });
  }

  open(algorithm: DigestAlgorithm, file: SharedFile | undefined): number {
    const hash = this.#nextNumber();
    if (file !== undefined) this.#files.set(hash, file.retain());
    this.#send({ ask: "open", hash, algorithm, fd: file?.fd });
    return hash;
  }

  follow(hash: number, storedBytes: number): void {
    this.#send({ ask: "follow", hash, storedBytes });
  }

  update(hash: number, bytes: Uint8Array): void {
    const copy = new Uint8Array(bytes);
    this.#sentBytes = (this.#sentBytes + copy.length) | 0;
    this.#send({ ask: "update", hash, bytes: copy }, [copy.buffer]);
    this.#waitForRoom();
  }

  fork(hash: number): number {
    const fork = this.#nextNumber();
    this.#send({ ask: "fork", hash, fork });
    return fork;
  }

  digest(hash: number): Promise<Digest> {
    return new Promise((resolve, reject) => {
      if (this.isGone) {
        reject(new StorageError("hash", "EWORKER"));
        return;
      }
      const reply = this.#nextNumber();
      this.#waiters.set(reply, { resolve, reject });
      // A caller waits for the digest, so the event loop must stay alive until it arrives.
      this.#worker.ref();
      this.#send({ ask: "digest", hash, reply });
    });
  }

  close(hash: number): void {
    this.#send({ ask: "close", hash });
  }

  async terminate(): Promise<void> {
    this.#end(undefined);
    await this.#worker.terminate();
    await this.#releaseFiles();
  }

  #nextNumber(): number {
    this.#lastNumber += 1;
    return this.#lastNumber;
  }

  #send(request: HashRequest, transfer: ArrayBuffer[] = []): void {
    if (!this.isGone) this.#worker.postMessage(request, transfer);
  }

  #waitForRoom(): void {
    while (!this.isGone) {
      const done = Atomics.load(this.#doneBytes, 0);
      if (((this.#sentBytes - done) | 0) <= MAX_WAITING_BYTES) return;
      const outcome = Atomics.wait(this.#doneBytes, 0, done, STALLED_AFTER_MS);
      if (outcome === "timed-out") void this.terminate();
    }
  }

  #receive(reply: HashReply): void {
    if ("closed" in reply) {
      this.#release(reply.closed);
      return;
    }
    const waiter = this.#waiters.get(reply.reply);
    this.#waiters.delete(reply.reply);
    if (this.#waiters.size === 0) this.#worker.unref();
    if ("digest" in reply) waiter?.resolve(reply.digest);
    else waiter?.reject(new StorageError("hash", reply.code));
  }

  #end(cause: unknown): void {
    if (this.isGone) return;
    this.isGone = true;
    for (const waiter of this.#waiters.values()) {
      waiter.reject(new StorageError("hash", "EWORKER", { cause }));
    }
    this.#waiters.clear();
    this.#worker.unref();
  }

  /** Called once the thread is known to have ended; until then it may be reading. */
  async #releaseFiles(): Promise<void> {
    for (const hash of this.#files.keys()) this.#release(hash);
    await Promise.all(this.#releases);
  }

  #release(hash: number): void {
    const file = this.#files.get(hash);
    if (file === undefined) return;
    this.#files.delete(hash);
    const release = file.release().finally(() => {
      this.#releases.delete(release);
    });
    this.#releases.add(release);
  }
}

class BackgroundHash implements StoredHash {
  readonly #findSession: () => WorkerSession;
  readonly #algorithm: DigestAlgorithm;
  readonly #file: SharedFile | undefined;
  #session: WorkerSession;
  #number: number;
  #storedBytes = 0;
  /** Bytes that are in no file were fed; if the worker dies they are lost. */
  #hasPassedBytes = false;
  #isClosed = false;

  constructor(
    findSession: () => WorkerSession,
    algorithm: DigestAlgorithm,
    file: SharedFile | undefined,
    fork?: { readonly session: WorkerSession; readonly number: number },
  ) {
    this.#findSession = findSession;
    this.#algorithm = algorithm;
    this.#file = file;
    this.#session = fork?.session ?? findSession();
    this.#number = fork?.number ?? this.#session.open(algorithm, file);
    this.#hasPassedBytes = fork !== undefined;
  }

  addStored(_chunks: readonly Uint8Array[], storedBytes: number): void {
    assert(!this.#isClosed, "a closed hash takes no bytes");
    assert(!this.#hasPassedBytes, "stored bytes come before passed ones");
    this.#storedBytes = storedBytes;
    if (!this.#session.isGone) this.#session.follow(this.#number, storedBytes);
  }

  update(bytes: Uint8Array): void {
    assert(!this.#isClosed, "a closed hash takes no bytes");
    if (bytes.length === 0) return;
    this.#revive();
    this.#hasPassedBytes = true;
    this.#session.update(this.#number, bytes);
  }

  fork(): ContentHash {
    assert(!this.#isClosed, "a closed hash can't be forked");
    this.#revive();
    return new BackgroundHash(this.#findSession, this.#algorithm, undefined, {
      session: this.#session,
      number: this.#session.fork(this.#number),
    });
  }

  async digest(): Promise<Digest> {
    if (this.#isClosed) throw new StorageError("hash", "ECLOSED");
    this.#revive();
    return this.#session.digest(this.#number);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#session.close(this.#number);
  }

  /** After a worker died, starts again with the next one, which hashes the file from its start. */
  #revive(): void {
    if (!this.#session.isGone || this.#hasPassedBytes) return;
    try {
      this.#session = this.#findSession();
    } catch {
      return; // The digest then fails like that of a dead worker.
    }
    this.#number = this.#session.open(this.#algorithm, this.#file);
    if (this.#storedBytes > 0) {
      this.#session.follow(this.#number, this.#storedBytes);
    }
  }
}
