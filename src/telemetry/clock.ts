/** Time as the program sees it; tests put their own in its place. */
export interface Clock {
  /** Wall time in epoch milliseconds: for what is stored and shown. It may jump. */
  nowMs(): number;
  /** Monotonic milliseconds from an arbitrary start: for ages and time-outs within the process. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};
