import { UpstreamError } from "../wire/errors.ts";
import { ANSWER_DEADLINE_MS } from "../wire/deadline.ts";

/**
 * Bounds a wait whose steps (a proof, a fill, the end of another fill) have bounds of their own:
 * their sum would keep an engine waiting for longer than it does. The work goes on behind.
 *
 * @param onLate is given what comes when nobody waits any more
 * @throws UpstreamError `timeout`, or what the work throws in time
 */
export async function withinDeadline<T>(
  work: Promise<T>,
  upstream: string,
  onLate: (late: T) => void,
  deadlineMs = ANSWER_DEADLINE_MS,
): Promise<T> {
  const { promise: over, resolve } = Promise.withResolvers<typeof OVER>();
  const timer = setTimeout(() => resolve(OVER), deadlineMs);
  try {
    const result = await Promise.race([work, over]);
    if (result !== OVER) return result;
  } finally {
    clearTimeout(timer);
  }
  work.then(onLate, () => {});
  throw new UpstreamError("timeout", "no answer in time", { upstream });
}

const OVER = Symbol("over");

/**
 * Bounds waits that follow each other by one patience, which begins now.
 *
 * @param refusal made when it is over; thrown by every wait that is not over by then
 */
export function withinPatience(
  patienceMs: number,
  refusal: () => Error,
): <T>(work: Promise<T>) => Promise<T> {
  const { promise: over, reject } = Promise.withResolvers<never>();
  over.catch(() => {});
  setTimeout(() => reject(refusal()), Math.max(0, patienceMs)).unref();
  return (work) => Promise.race([work, over]);
}
