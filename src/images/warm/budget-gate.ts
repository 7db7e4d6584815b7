import type { Mirror } from "../../mirror/mirror.ts";
import type { Clock, Schedule } from "../../telemetry/clock.ts";
import { unlessAborted } from "../unless-aborted.ts";
import type { ImageReference } from "../image-reference.ts";

/** The upstream is asked by a HEAD this often whether its budget has grown. */
const RECHECK_MS = 5 * 60_000;
const MIN_WAIT_MS = 1_000;

/** The rest of an upstream's pull budget is kept for the requests of clients. */
export class BudgetConservedError extends Error {
  constructor(upstream: string, untilMs: number) {
    const until = new Date(untilMs).toISOString();
    super(
      `not fetched: the rest of the pull budget of ${upstream} is kept for clients until ${until}; warm again then, or let the job wait`,
    );
    this.name = "BudgetConservedError";
  }
}

/** Holds the requests of a job that cost a pull while the budget of their upstream is nearly used up. */
export class BudgetGate {
  readonly #mirror: Pick<Mirror, "headManifest" | "pullBudget">;
  readonly #clock: Clock;
  readonly #schedule: Schedule;
  readonly #isWaiting: boolean;
  readonly #signal: AbortSignal;
  readonly #onChange: () => void;
  /** By upstream: the HEAD that shows the budget before the first pull of the job. */
  readonly #firsts = new Map<string, Promise<void>>();
  /** By upstream. */
  readonly #waits = new Map<
    string,
    { readonly untilMs: number; readonly ended: Promise<void> }
  >();

  constructor(options: {
    readonly mirror: Pick<Mirror, "headManifest" | "pullBudget">;
    readonly clock: Clock;
    readonly schedule: Schedule;
    /** False: {@link pass} fails where it would wait. */
    readonly isWaiting: boolean;
    readonly signal: AbortSignal;
    /** Called when {@link waitsUntilMs} changes. */
    readonly onChange: () => void;
  }) {
    this.#mirror = options.mirror;
    this.#clock = options.clock;
    this.#schedule = options.schedule;
    this.#isWaiting = options.isWaiting;
    this.#signal = options.signal;
    this.#onChange = options.onChange;
  }

  /** The time at which the first waiting upstream continues; undefined if none waits. */
  get waitsUntilMs(): number | undefined {
    const times = [...this.#waits.values()].map(({ untilMs }) => untilMs);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /**
   * Resolves when a pull of the image is affordable.
   *
   * @throws BudgetConservedError if the job does not wait; the signal's reason
   */
  async pass(image: ImageReference): Promise<void> {
    const { upstream } = image.key;
    await this.#askFirst(image);
    for (;;) {
      this.#signal.throwIfAborted();
      const { pausedUntilMs } = this.#mirror.pullBudget(upstream);
      if (pausedUntilMs === undefined) return;
      if (!this.#isWaiting) {
        throw new BudgetConservedError(upstream, pausedUntilMs);
      }
      await this.#wait(image, pausedUntilMs);
    }
  }

  /**
   * As {@link pass}, after the upstream refused a request for the lack of budget.
   *
   * @param refusal thrown if the upstream is not paused now
   */
  async passOr(image: ImageReference, refusal: unknown): Promise<void> {
    const { pausedUntilMs } = this.#mirror.pullBudget(image.key.upstream);
    if (pausedUntilMs === undefined) throw refusal;
    await this.pass(image);
  }

  /** Learns the budget by a HEAD, which costs none, unless it is known: pulls may start concurrently. */
  async #askFirst(image: ImageReference): Promise<void> {
    const { upstream } = image.key;
    let first = this.#firsts.get(upstream);
    if (first === undefined) {
      const isKnown = this.#mirror.pullBudget(upstream).remaining !== undefined;
      first = isKnown ? Promise.resolve() : this.#ask(image);
      this.#firsts.set(upstream, first);
    }
    await first;
  }

  /** All images of an upstream wait together, and one of them asks. */
  async #wait(image: ImageReference, untilMs: number): Promise<void> {
    const { upstream } = image.key;
    let wait = this.#waits.get(upstream);
    if (wait === undefined) {
      const ended = this.#sleepAndAsk(image, untilMs).finally(() => {
        this.#waits.delete(upstream);
        this.#onChange();
      });
      wait = { untilMs, ended };
      this.#waits.set(upstream, wait);
      this.#onChange();
    }
    await wait.ended;
  }

  async #sleepAndAsk(image: ImageReference, untilMs: number): Promise<void> {
    const waitMs = Math.max(MIN_WAIT_MS, untilMs - this.#clock.nowMs());
    const { promise: slept, resolve } = Promise.withResolvers<void>();
    const cancel = this.#schedule(resolve, Math.min(waitMs, RECHECK_MS));
    try {
      await unlessAborted(slept, this.#signal);
    } finally {
      cancel();
    }
    await this.#ask(image);
  }

  /** The answer states the budget. A failure is found by the request itself. */
  async #ask({ key, reference }: ImageReference): Promise<void> {
    const asked = this.#mirror.headManifest(key, reference);
    await unlessAborted(asked, this.#signal).catch(() => {});
  }
}
