/** A disk that takes longer for one name counts as not answering. */
const PATIENCE_MS = 6_000;
const CHECK_EVERY_MS = 1_000;

interface Call {
  readonly startedAtMs: number;
  readonly reject: (error: Error) => void;
}

/**
 * Bounds calls that the system may never answer, as on a network file system without its server. The
 * caller continues without the storage; the call itself can't be cancelled.
 */
export class HungCalls {
  readonly #patienceMs: number;
  readonly #checkEveryMs: number;
  /** Ordered by start time. */
  readonly #calls = new Set<Call>();
  #timer: NodeJS.Timeout | undefined;

  constructor(patienceMs = PATIENCE_MS, checkEveryMs = CHECK_EVERY_MS) {
    this.#patienceMs = patienceMs;
    this.#checkEveryMs = checkEveryMs;
  }

  /**
   * Runs a call, and rejects if it takes too long.
   *
   * @param work calls `isLate` to find out whether its result is still awaited
   * @param onLate receives a result that arrived too late, such as a descriptor that must be closed
   * @throws what `work` throws; an error with code `ETIMEDOUT`
   */
  run<T>(
    work: (isLate: () => boolean) => Promise<T>,
    onLate?: (result: T) => void,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const call: Call = { startedAtMs: performance.now(), reject };
      this.#calls.add(call);
      this.#timer ??= setInterval(
        () => this.#rejectLate(),
        this.#checkEveryMs,
      ).unref();
      work(() => !this.#calls.has(call)).then(
        (result) => {
          if (this.#calls.delete(call)) resolve(result);
          else onLate?.(result);
        },
        (error: unknown) => {
          this.#calls.delete(call);
          reject(error instanceof Error ? error : new Error(String(error)));
        },
      );
    });
  }

  #rejectLate(): void {
    const before = performance.now() - this.#patienceMs;
    for (const call of this.#calls) {
      if (call.startedAtMs > before) break;
      this.#calls.delete(call);
      call.reject(
        Object.assign(new Error("ETIMEDOUT: the disk does not answer"), {
          code: "ETIMEDOUT",
        }),
      );
    }
    if (this.#calls.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
