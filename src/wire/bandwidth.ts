/** A burst may use the bandwidth of this many milliseconds. */
const BURST_MS = 50;

/**
 * Limits the bandwidth that all bodies of one upstream share. Received bytes are booked at the end of
 * a queue, so that each body waits for its own booking and none starves; the time by which bookings
 * are ahead is the bucket.
 */
export class Bandwidth {
  readonly #bytesPerSecond: number;
  readonly #monotonicMs: () => number;
  /** The rate is used up until this time. */
  #bookedUntilMs = 0;

  /** @param bytesPerSecond Infinity: unlimited */
  constructor(
    bytesPerSecond: number,
    monotonicMs: () => number = () => performance.now(),
  ) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#monotonicMs = monotonicMs;
  }

  /**
   * Books received bytes.
   *
   * @returns how long to pause their body; 0 for not at all
   */
  book(bytes: number): number {
    if (this.#bytesPerSecond === Infinity) return 0;
    const nowMs = this.#monotonicMs();
    const startMs = Math.max(this.#bookedUntilMs, nowMs - BURST_MS);
    this.#bookedUntilMs = startMs + (bytes * 1_000) / this.#bytesPerSecond;
    return Math.max(0, this.#bookedUntilMs - nowMs);
  }
}
