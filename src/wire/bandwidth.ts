/** So many milliseconds' worth may come at once. */
const BURST_MS = 50;

/**
 * What all bodies of one upstream may take together. Bytes that came are booked at the end of the
 * queue, so that each body waits for its own turn and none starves; the bucket is the time by which
 * the bookings are ahead.
 */
export class Bandwidth {
  readonly #bytesPerSecond: number;
  readonly #monotonicMs: () => number;
  /** Until then the rate is used up. */
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
   * Books bytes that came.
   *
   * @returns for how long their body should not be read on; 0 for not at all
   */
  book(bytes: number): number {
    if (this.#bytesPerSecond === Infinity) return 0;
    const nowMs = this.#monotonicMs();
    const startMs = Math.max(this.#bookedUntilMs, nowMs - BURST_MS);
    this.#bookedUntilMs = startMs + (bytes * 1_000) / this.#bytesPerSecond;
    return Math.max(0, this.#bookedUntilMs - nowMs);
  }
}
