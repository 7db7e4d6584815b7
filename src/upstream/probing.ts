/** What a caller waits for a server that failed before; a probe that takes longer goes on behind. */
const PATIENCE_MS = 1_000;
/** All of a probe behind: connection, tokens, headers, and small bodies. */
const MAX_PROBE_MS = 20_000;

export interface ProbeOptions<T> {
  /** Asks, and tells the breaker how it went. */
  readonly act: (signal: AbortSignal) => Promise<T>;
  /** Ends an answer that nobody waits for any more. */
  readonly discard: (answer: T) => void;
  /** The caller's; it ends the probe only while the caller waits. */
  readonly signal: AbortSignal;
  readonly tooLate: () => Error;
}

/**
 * Asks a server that failed before. Who comes first when its rest is over waits for a moment, not
 * for a time-out: a black hole costs one bounded wait, however often it is probed.
 *
 * @throws what `act` throws, or `tooLate()` when the probe goes on behind
 */
export async function probe<T>(options: ProbeOptions<T>): Promise<T> {
  const { act, discard, signal, tooLate } = options;
  const own = new AbortController();
  const follow = (): void => own.abort(signal.reason);
  if (signal.aborted) follow();
  signal.addEventListener("abort", follow, { once: true });
  const unlink = (): void => signal.removeEventListener("abort", follow);
  const work = act(own.signal);
  const { promise: patience, resolve } = Promise.withResolvers<"over">();
  const timer = setTimeout(() => resolve("over"), PATIENCE_MS);
  let first: Awaited<T> | "over";
  try {
    first = await Promise.race([work, patience]);
  } catch (error) {
    unlink();
    throw error;
  } finally {
    clearTimeout(timer);
  }
  // A body that was opened ends with its caller from now on, too.
  if (first !== "over") return first;
  unlink();
  const bound = setTimeout(() => own.abort(), MAX_PROBE_MS);
  void work.then(discard, () => undefined).finally(() => clearTimeout(bound));
  throw tooLate();
}

/** Asks a server that failed before while another one answers the caller. */
export function probeBehind<T>({
  act,
  discard,
}: Pick<ProbeOptions<T>, "act" | "discard">): void {
  void act(AbortSignal.timeout(MAX_PROBE_MS)).then(discard, () => undefined);
}
