/** How long a caller waits for a probe; a longer probe continues in the background. */
const PATIENCE_MS = 1_000;
/** Bound of a background probe: connection, tokens, headers and small bodies. */
const MAX_PROBE_MS = 20_000;

export interface ProbeOptions<T> {
  /** Sends the request and reports its result to the breaker. */
  readonly act: (signal: AbortSignal) => Promise<T>;
  /** Ends an answer that no caller waits for. */
  readonly discard: (answer: T) => void;
  /** The caller's signal; it ends the probe only while the caller waits. */
  readonly signal: AbortSignal;
  readonly tooLate: () => Error;
}

/**
 * Probes a server that failed before. The caller waits for a second at most, not for a time-out: a
 * server that never answers costs one short wait per probe.
 *
 * @throws the error of `act`, or `tooLate()` if the probe continues in the background
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
  // An open body still ends with its caller.
  if (first !== "over") return first;
  unlink();
  const bound = setTimeout(() => own.abort(), MAX_PROBE_MS);
  void work.then(discard, () => undefined).finally(() => clearTimeout(bound));
  throw tooLate();
}

/** Probes a server in the background while another one answers the caller. */
export function probeInBackground<T>({
  act,
  discard,
}: Pick<ProbeOptions<T>, "act" | "discard">): void {
  void act(AbortSignal.timeout(MAX_PROBE_MS)).then(discard, () => undefined);
}
