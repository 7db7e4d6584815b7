/** The program's source of time; tests replace it. */
export interface Clock {
  /** Wall time in epoch milliseconds, for stored and displayed times. It may jump. */
  nowMs(): number;
  /** Monotonic milliseconds from an arbitrary start, for ages and time-outs within the process. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

/** Calls `run` once after a delay, and returns a function that cancels it. Never keeps the process alive. */
export type Schedule = (run: () => void, delayMs: number) => () => void;

export const scheduleUnref: Schedule = (run, delayMs) => {
  const timer = setTimeout(run, delayMs).unref();
  return () => clearTimeout(timer);
};
