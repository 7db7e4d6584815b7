import { UpstreamError } from "../wire/errors.ts";
import { ANSWER_DEADLINE_MS } from "../wire/deadline.ts";

/**
 * Bounds a wait whose steps (a proof, a fill, the end of another fill) have bounds of their own: the
 * sum of those is longer than an engine waits. The work continues in the background.
 *
 * @param onLate receives a result that arrives after the deadline
 * @throws UpstreamError `timeout`; the error of the work if it fails before the deadline
 */
export async function withinDeadline<T>(
  work: Promise<T>,
  upstream: string,
  onLate: (late: T) => void,
  deadlineMs = ANSWER_DEADLINE_MS,
): Promise<T> {
  const { promise: expired, resolve } = Promise.withResolvers<typeof EXPIRED>();
  const timer = setTimeout(() => resolve(EXPIRED), deadlineMs);
  try {
    const result = await Promise.race([work, expired]);
    if (result !== EXPIRED) return result;
  } finally {
    clearTimeout(timer);
  }
  work.then(onLate, () => {});
  throw new UpstreamError("timeout", "no answer in time", { upstream });
}

const EXPIRED = Symbol("expired");

/**
 * Returns a function that bounds consecutive waits by one shared time, which begins now.
 *
 * @param refusal creates the error that every wait still pending at the end rejects with
 */
export function withinPatience(
  patienceMs: number,
  refusal: () => Error,
): <T>(work: Promise<T>) => Promise<T> {
  const { promise: expired, reject } = Promise.withResolvers<never>();
  expired.catch(() => {});
  setTimeout(() => reject(refusal()), Math.max(0, patienceMs)).unref();
  return (work) => Promise.race([work, expired]);
}
