/** A disk that takes longer for one name is taken for one that does not answer. */
const PATIENCE_MS = 6_000;
const LOOK_EVERY_MS = 1_000;

interface Call {
  readonly startedAtMs: number;
  readonly reject: (error: Error) => void;
}

/**
 * Bounds calls that the system may never answer, as on a network file system whose server is gone:
 * the caller goes on without the storage. The call itself can't be ended.
 */
export class HungCalls {
  readonly #patienceMs: number;
  readonly #lookEveryMs: number;
  /** In the order in which they began. */
  readonly #calls = new Set<Call>();
  #timer: NodeJS.Timeout | undefined;

  constructor(patienceMs = PATIENCE_MS, lookEveryMs = LOOK_EVERY_MS) {
    this.#patienceMs = patienceMs;
    this.#lookEveryMs = lookEveryMs;
  }

  /**
   * @param work `isLate` says whether its result is of use to anything
   * @param onLate gets a result that came too late, such as a descriptor that must be closed
   * @throws what the work throws; an error with code `ETIMEDOUT`
   */
  run<T>(
    work: (isLate: () => boolean) => Promise<T>,
    onLate?: (result: T) => void,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const call: Call = { startedAtMs: performance.now(), reject };
      this.#calls.add(call);
      this.#timer ??= setInterval(
        () => this.#look(),
        this.#lookEveryMs,
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

  #look(): void {
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
