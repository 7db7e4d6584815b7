const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Returns a signal that the first SIGINT, SIGTERM or SIGHUP aborts, so that a command removes what is not
 * complete. A second one ends the process, as do all after the disposal.
 */
export function stopSignal(
  reason = new Error("the command was stopped"),
): Disposable & { readonly signal: AbortSignal } {
  const abort = new AbortController();
  const stop = (): void => {
    remove();
    abort.abort(reason);
  };
  const remove = (): void => {
    for (const signal of SIGNALS) process.off(signal, stop);
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  return { signal: abort.signal, [Symbol.dispose]: remove };
}
