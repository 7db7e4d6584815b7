/** A slower download gives way to downloads that wait for its slot. */
const MIN_BYTES_PER_SECOND = 1_024;
const TRICKLE_MS = 60_000;
const MIN_BYTES = (MIN_BYTES_PER_SECOND * TRICKLE_MS) / 1_000;

/**
 * Measures whether one body is fast enough. Time in which the mirror does not read it, because of the
 * storage, the window or the bandwidth limit, does not count.
 */
export class FillPace {
  readonly #monotonicMs: () => number;
  readonly #pacedMs: () => number;
  #sinceMs: number;
  #bytes = 0;
  #pacedMsBefore: number;
  #heldAtMs: number | undefined;

  /** @param pacedMs returns the total time for which the bandwidth limit has paused the body */
  constructor(monotonicMs: () => number, pacedMs: () => number) {
    this.#monotonicMs = monotonicMs;
    this.#pacedMs = pacedMs;
    this.#sinceMs = monotonicMs();
    this.#pacedMsBefore = pacedMs();
  }

  onBytes(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes >= MIN_BYTES) this.#restart();
  }

  /** The body is not read until {@link onFreed}. */
  onHeld(): void {
    this.#heldAtMs ??= this.#monotonicMs();
  }

  onFreed(): void {
    if (this.#heldAtMs === undefined) return;
    this.#sinceMs += this.#monotonicMs() - this.#heldAtMs;
    this.#heldAtMs = undefined;
  }

  /** True if the body delivered less than 1 KiB/s for 60 s. */
  get isTrickling(): boolean {
    if (this.#heldAtMs !== undefined) return false;
    const pacedMs = this.#pacedMs() - this.#pacedMsBefore;
    return this.#monotonicMs() - this.#sinceMs - pacedMs > TRICKLE_MS;
  }

  #restart(): void {
    this.#bytes = 0;
    this.#sinceMs = this.#monotonicMs();
    this.#pacedMsBefore = this.#pacedMs();
  }
}
