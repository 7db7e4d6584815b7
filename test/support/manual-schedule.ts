import type { Schedule } from "../../src/telemetry/clock.ts";

/** Things that are to run later, run when a test says so. */
export class ManualSchedule {
  readonly #waiting: { run: () => void; delayMs: number }[] = [];

  readonly start: Schedule = (run, delayMs) => {
    const entry = { run, delayMs };
    this.#waiting.push(entry);
    return () => {
      const at = this.#waiting.indexOf(entry);
      if (at !== -1) this.#waiting.splice(at, 1);
    };
  };

  /** Of what waits, in the order it was scheduled. */
  get delaysMs(): readonly number[] {
    return this.#waiting.map(({ delayMs }) => delayMs);
  }

  runNext(): void {
    this.#waiting.shift()?.run();
  }
}
