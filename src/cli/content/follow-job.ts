import { setTimeout as delay } from "node:timers/promises";
import type { Job } from "../../images/jobs/job.ts";
import { confirmOnTerminal } from "../confirm.ts";
import type { CommandIo } from "../declare-command.ts";
import { Failed } from "../images/image-backend.ts";
import { outputStyle } from "../output/output-style.ts";
import { type AskMirror, JOBS_PATH, problemText } from "../running-mirror.ts";
import { writeOut } from "../write-out.ts";
import {
  BarProgress,
  LineProgress,
  type ProgressView,
} from "./warm-progress.ts";

const POLL_MS = 500;
/** A mirror that restarts answers again within this time. */
const LOST_PATIENCE_MS = 30_000;

export interface FollowOptions extends CommandIo {
  /** True: no progress is shown. */
  readonly isQuiet: boolean;
  readonly lostPatienceMs?: number;
}

/**
 * Follows a job to its end and shows its progress. The job belongs to the mirror and does not end with
 * this command: a lost connection leaves it alone, and so does Ctrl-C unless the operator agrees to
 * cancel it.
 *
 * @returns the ended job; undefined if it continues, which was printed
 */
export async function followJob(
  ask: AskMirror,
  started: Job,
  options: FollowOptions,
): Promise<Job | undefined> {
  const interrupts = new Interrupts();
  const view = viewOf(options);
  const show = async (text: string): Promise<void> => {
    if (text !== "") await writeOut(options.stdout, text);
  };
  const poll = new JobPoll(ask, started.id, options);
  try {
    for (let job = started; ;) {
      if (job.endedAt !== null) return job;
      if (view !== undefined) await show(view.show(job, performance.now()));
      if (await interrupts.within(POLL_MS)) {
        if (view !== undefined) await show(view.clear());
        const isCancelled = await offerCancel(ask, job, interrupts, options);
        if (!isCancelled) return undefined;
      }
      const next = await poll.read(interrupts);
      if (next === undefined) return undefined;
      job = next;
    }
  } finally {
    if (view !== undefined) await show(view.clear());
    interrupts.stop();
  }
}

function viewOf({
  isQuiet,
  stdout,
  env,
}: FollowOptions): ProgressView | undefined {
  if (isQuiet) return undefined;
  const style = outputStyle(stdout, env);
  return stdout.isTTY === true && env["TERM"] !== "dumb"
    ? new BarProgress(style)
    : new LineProgress();
}

/** Reads the state of a job, also over a restart of the mirror. */
class JobPoll {
  readonly #ask: AskMirror;
  readonly #id: string;
  readonly #options: FollowOptions;

  constructor(ask: AskMirror, id: string, options: FollowOptions) {
    this.#ask = ask;
    this.#id = id;
    this.#options = options;
  }

  /** @returns undefined if the mirror does not answer any more. @throws Failed */
  async read(interrupts: Interrupts): Promise<Job | undefined> {
    const { lostPatienceMs = LOST_PATIENCE_MS, stderr } = this.#options;
    const giveUpAtMs = performance.now() + lostPatienceMs;
    for (;;) {
      try {
        return await this.#get();
      } catch (error) {
        if (error instanceof Failed) throw error;
      }
      const isOver = performance.now() >= giveUpAtMs;
      if (isOver || (await interrupts.within(POLL_MS))) {
        await writeOut(
          stderr,
          `entrepot: lost the connection to the mirror; job ${this.#id} continues there: see 'entrepot jobs ${this.#id}'\n`,
        );
        return undefined;
      }
    }
  }

  /** @throws Failed; another error if the mirror does not answer, or not yet */
  async #get(): Promise<Job> {
    const { status, body } = await this.#ask("GET", `${JOBS_PATH}/${this.#id}`);
    if (status === 200) return body as Job;
    if (status === 503) throw new Error("the mirror is starting");
    throw new Failed(
      1,
      `the running mirror answered ${status} for job ${this.#id}: ${problemText(body)}`,
    );
  }
}

/** Asks on a terminal whether the job is to be cancelled too. @returns whether it was */
async function offerCancel(
  ask: AskMirror,
  { id }: Job,
  interrupts: Interrupts,
  { stdin, stderr }: FollowOptions,
): Promise<boolean> {
  // A second Ctrl-C leaves without an answer.
  const left = interrupts.next().then(() => "declined" as const);
  const answer = await Promise.race([
    confirmOnTerminal(stdin, stderr, `Cancel job ${id} in the mirror?`),
    left,
  ]);
  if (answer === "agreed") {
    await ask("DELETE", `${JOBS_PATH}/${id}`);
    return true;
  }
  await writeOut(
    stderr,
    `\nentrepot: job ${id} continues in the mirror: see 'entrepot jobs ${id}'\n`,
  );
  return false;
}

/** Ctrl-C, and the signal that ends a process, while a job is followed. */
class Interrupts {
  #next: PromiseWithResolvers<void> = Promise.withResolvers();

  constructor() {
    process.on("SIGINT", this.#onSignal);
    process.on("SIGTERM", this.#onSignal);
  }

  /** Resolves at the next interrupt after this call. */
  next(): Promise<void> {
    this.#next = Promise.withResolvers();
    return this.#next.promise;
  }

  /** Waits, and returns whether an interrupt ended the wait. */
  async within(durationMs: number): Promise<boolean> {
    const abort = new AbortController();
    const timer = delay(durationMs, false, { signal: abort.signal }).catch(
      () => false,
    );
    const isInterrupted = await Promise.race([
      this.#next.promise.then(() => true),
      timer,
    ]);
    abort.abort();
    return isInterrupted;
  }

  stop(): void {
    process.off("SIGINT", this.#onSignal);
    process.off("SIGTERM", this.#onSignal);
  }

  readonly #onSignal = (): void => this.#next.resolve();
}
