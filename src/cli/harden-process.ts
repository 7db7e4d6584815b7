/**
 * Has the effect of `--disable-sigusr1` and `--disable-proto=delete` on a process that was started
 * without them, for example by `node dist/main.js`. Called before other modules are loaded.
 */
export function hardenProcess(): void {
  // With a handler the signal does not open a debugger, which would run code of any local process.
  process.on("SIGUSR1", () => {});
  // A `__proto__` key of a parsed document then cannot change a prototype through a merge.
  Reflect.deleteProperty(Object.prototype, "__proto__");
}
