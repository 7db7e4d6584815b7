import type { Config } from "../../config/config.ts";
import { readTextFile } from "../../config/files/files.ts";
import { type Clock, type Schedule } from "../../telemetry/clock.ts";
import { CronChecks, CronRuns } from "../../telemetry/cron-runs.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { Jobs } from "../jobs/job.ts";
import {
  DEFAULT_WARM_CONCURRENCY,
  MAX_WARM_BYTES,
  type WarmRequest,
} from "./warm-request.ts";

export type ScheduledList = Config["warm"][number];

export interface WarmScheduleOptions {
  /** Returns the lists as they are configured now. */
  readonly lists: () => readonly ScheduledList[];
  readonly jobs: Pick<Jobs, "start" | "get">;
  readonly clock: Clock;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly schedule?: Schedule;
}

/**
 * Starts the warm jobs of the configuration when their cron expressions are due. The file of a list is
 * read at each run; if that fails, the job fails with the reason. A run is skipped while the job of
 * the previous one has not ended.
 */
export class WarmSchedule {
  readonly #options: WarmScheduleOptions;
  readonly #runs: CronRuns;
  /** The last job of each list. */
  readonly #jobs = new Map<string, string>();
  readonly #checks: CronChecks;

  constructor(options: WarmScheduleOptions) {
    this.#options = options;
    this.#runs = new CronRuns(options.clock);
    this.#checks = new CronChecks(() => this.#check(), options.schedule);
  }

  /** Called once the index is complete. */
  start(): void {
    this.#checks.start();
  }

  /** Resolves when the running check has ended; jobs are not part of it. */
  stop(): Promise<void> {
    return this.#checks.stop();
  }

  async #check(): Promise<void> {
    const { log } = this.#options;
    try {
      await this.#startDue();
    } catch (error) {
      log.warn({ err: error }, "could not start a scheduled warm job");
    }
  }

  async #startDue(): Promise<void> {
    const lists = new Map(
      this.#options.lists().map((list) => [JSON.stringify(list), list]),
    );
    const names = new Set(lists.keys());
    this.#runs.keep(names);
    for (const name of this.#jobs.keys()) {
      if (!names.has(name)) this.#jobs.delete(name);
    }
    for (const [name, list] of lists) {
      if (this.#checks.isStopped) return;
      if (await this.#runs.isDue(name, list.schedule)) {
        await this.#startJob(name, list);
      }
    }
  }

  async #startJob(name: string, list: ScheduledList): Promise<void> {
    const { jobs, log } = this.#options;
    const last = jobs.get(this.#jobs.get(name) ?? "");
    if (last !== undefined && last.endedAt === null) {
      log.info(
        { job: last.id, list: list.list },
        "skipped a scheduled warm job because the previous one has not ended",
      );
      return;
    }
    const { id } = await jobs.start("warm", await requestOf(list));
    this.#jobs.set(name, id);
  }
}

async function requestOf({
  list: name,
  platforms,
  withReferrers,
  pin,
}: ScheduledList): Promise<WarmRequest> {
  const read = await readTextFile(name, MAX_WARM_BYTES);
  return {
    lists: read.isRead ? [{ name, text: read.text }] : [],
    faults: read.isRead
      ? []
      : [
          {
            origin: name,
            message: `got ${read.seen}; expected a readable list of images`,
          },
        ],
    refs: [],
    platforms,
    withReferrers,
    concurrency: DEFAULT_WARM_CONCURRENCY,
    // The next run continues; a job that waits would let it be skipped.
    wait: false,
    pin,
    client: "schedule",
  };
}
