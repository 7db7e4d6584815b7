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

/** Runs something later, once; what it gives back calls it off. Never keeps the process alive. */
export type Schedule = (run: () => void, delayMs: number) => () => void;

export const scheduleUnref: Schedule = (run, delayMs) => {
  const timer = setTimeout(run, delayMs).unref();
  return () => clearTimeout(timer);
};
