import { type Clock, type Schedule, scheduleUnref } from "./clock.ts";

/** How often due runs are looked for: cron expressions have a resolution of a minute. */
export const CRON_CHECK_MS = 30_000;

/** Repeats a search for due runs until it is stopped, one at a time. */
export class CronChecks {
  readonly #check: () => Promise<void>;
  readonly #schedule: Schedule;
  #cancel: (() => void) | undefined;
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;

  /** @param check never rejects */
  constructor(
    check: () => Promise<void>,
    schedule: Schedule | undefined = scheduleUnref,
  ) {
    this.#check = check;
    this.#schedule = schedule;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  start(): void {
    this.#running = this.#repeat();
  }

  /** Resolves when the running check has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel?.();
    await this.#running;
  }

  async #repeat(): Promise<void> {
    await this.#check();
    if (this.#isStopped) return;
    this.#cancel = this.#schedule(() => this.start(), CRON_CHECK_MS);
  }
}

interface NextRun {
  readonly schedule: string;
  readonly dueAtMs: number;
  /** When it was computed; an earlier time shows that the clock was set back. */
  readonly computedAtMs: number;
}

/**
 * Remembers when cron expressions are due next, in local time. Runs that were due before the first
 * check are skipped; a changed expression or clock starts again.
 */
export class CronRuns {
  readonly #clock: Clock;
  readonly #nextRuns = new Map<string, NextRun>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Forgets the expressions of other names. */
  keep(names: ReadonlySet<string>): void {
    for (const name of this.#nextRuns.keys()) {
      if (!names.has(name)) this.#nextRuns.delete(name);
    }
  }

  /** Returns whether the expression of a name is due, once for each time. */
  async isDue(name: string, schedule: string): Promise<boolean> {
    const nowMs = this.#clock.nowMs();
    const known = this.#nextRuns.get(name);
    const isValid = known?.schedule === schedule && nowMs >= known.computedAtMs;
    if (isValid && nowMs < known.dueAtMs) return false;
    this.#nextRuns.set(name, {
      schedule,
      dueAtMs: await nextRunMs(schedule, nowMs),
      computedAtMs: nowMs,
    });
    return isValid;
  }
}

/** Loaded with the first schedule: most configurations have none. */
async function nextRunMs(schedule: string, nowMs: number): Promise<number> {
  const { Cron } = await import("croner");
  const cron = new Cron(schedule, { mode: "5-part", paused: true });
  return cron.nextRun(new Date(nowMs))?.getTime() ?? Infinity;
}
