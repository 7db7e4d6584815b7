/**
 * Applies what `--disable-sigusr1` and `--disable-proto=delete` do to a process that was started
 * without them, as by `node dist/main.js`. Called before anything else is loaded.
 */
export function hardenProcess(): void {
  // With a handler the signal opens no debugger, which runs what any local process sends it.
  process.on("SIGUSR1", () => {});
  // A parsed document's `__proto__` can then reach no prototype by a merge.
  Reflect.deleteProperty(Object.prototype, "__proto__");
}
