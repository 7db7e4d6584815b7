import type { HostedConfig } from "../../config/config.ts";
import { type Clock, type Schedule } from "../../telemetry/clock.ts";
import { CronChecks, CronRuns } from "../../telemetry/cron-runs.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { IndexAwayError } from "../../storage/metadata-index.ts";
import { ClockSteps } from "../clock-steps.ts";
import type { Retention } from "./retention.ts";

export interface RetentionScheduleOptions {
  readonly retention: Pick<Retention, "apply">;
  /** Returns the registries as they are configured now. */
  readonly registries: () => readonly HostedConfig[];
  readonly clock: Clock;
  readonly log: Pick<Logger, "warn">;
  readonly schedule?: Schedule;
}

/** The time after a step of the clock in which nothing is deleted because of its age. */
const SUSPECT_MS = 24 * 3_600_000;

/**
 * Applies retention when the cron expression of a registry is due, in local time. Runs that were due
 * while the process was stopped are skipped.
 */
export class RetentionSchedule {
  readonly #options: RetentionScheduleOptions;
  readonly #clockSteps: ClockSteps;
  /** By the registry's name. */
  readonly #runs: CronRuns;
  readonly #checks: CronChecks;

  constructor(options: RetentionScheduleOptions) {
    this.#options = options;
    this.#runs = new CronRuns(options.clock);
    this.#clockSteps = new ClockSteps(options.clock, SUSPECT_MS);
    this.#checks = new CronChecks(() => this.#check(), options.schedule);
  }

  /** Called when the index is complete. */
  start(): void {
    this.#checks.start();
  }

  /** Resolves when the running check has ended. {@link Retention.stop} ends a running retention. */
  stop(): Promise<void> {
    return this.#checks.stop();
  }

  async #check(): Promise<void> {
    const { log } = this.#options;
    try {
      await this.#runDue();
    } catch (error) {
      if (!(error instanceof IndexAwayError)) {
        log.warn(
          { err: error },
          "the scheduled retention failed and runs again when it is due",
        );
      }
    }
  }

  async #runDue(): Promise<void> {
    const { registries, retention } = this.#options;
    const isSuspect = this.#clockSteps.isRecent();
    const configured = registries().filter((one) => one.retention);
    this.#runs.keep(new Set(configured.map(({ name }) => name)));
    for (const { name, retention: rules } of configured) {
      if (rules === undefined || this.#checks.isStopped) continue;
      if (!(await this.#runs.isDue(name, rules.schedule))) continue;
      await retention.apply({
        registry: name,
        timed: isSuspect ? "none" : "half",
      });
    }
  }
}
