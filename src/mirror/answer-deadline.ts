import { UpstreamError } from "../upstream/errors.ts";
import { ANSWER_DEADLINE_MS } from "./mirrored-upstream.ts";

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
    if (result !== OVER) return result as T;
  } finally {
    clearTimeout(timer);
  }
  work.then(onLate, () => {});
  throw new UpstreamError("timeout", "no answer in time", { upstream });
}

const OVER = Symbol("over");
