import type { Mirror } from "../../mirror/mirror.ts";
import type { Digest } from "../../oci/digest.ts";
import { Pace } from "../../retention/victim-search.ts";
import type { Clock, Schedule } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { imageText } from "../image-reference.ts";
import type { JobRun, JobWork } from "../jobs/job.ts";
import { unlessAborted } from "../unless-aborted.ts";
import { BudgetConservedError, BudgetGate } from "./budget-gate.ts";
import { failureText, isTransient, registryErrorOf } from "./failure-text.ts";
import { UpstreamQueues } from "./upstream-queues.ts";
import { type WarmImageParts, WarmImages } from "./warm-image.ts";
import type { WarmRequest } from "./warm-request.ts";
import {
  type TagsTarget,
  type TargetParts,
  type WarmTarget,
  WarmTargets,
} from "./warm-targets.ts";

export interface WarmParts extends TargetParts, WarmImageParts {
  readonly mirror: TargetParts["mirror"] &
    WarmImageParts["mirror"] &
    Pick<Mirror, "pullBudget">;
  readonly clock: Clock;
  readonly schedule: Schedule;
  readonly log: Pick<Logger, "warn">;
}

/** Returns the work of jobs that make images present; their requests are {@link WarmRequest}s. */
export function createWarmWork(parts: WarmParts): JobWork {
  return async (request, run) => {
    await new WarmRun(parts, request as WarmRequest, run).work();
  };
}

type Item =
  | { readonly kind: "tags"; readonly target: TagsTarget }
  | { readonly kind: "image"; readonly target: WarmTarget };

interface ImageBytes {
  readonly bytesDone: number;
  readonly bytesKnown: number;
}

const EVICTED =
  "was evicted before the job ended: its images need more room than eviction.maxSize and minFree leave";

const NO_BYTES: ImageBytes = { bytesDone: 0, bytesKnown: 0 };

/** A registry that restarts is back by then. */
const MAX_ATTEMPTS = 3;
const MAX_PAUSE_MS = 30_000;
/** For this time an upstream whose connection failed is not asked. */
const LEFT_ALONE_MS = 5_000;
/** An upstream that was down is probed first, and used again after an answer. */
const PROBE_MS = 1_000;

/** One job: every image is tried, and those whose upstream failed again at the end, after a pause. */
class WarmRun {
  readonly #parts: WarmParts;
  readonly #request: WarmRequest;
  readonly #run: JobRun;
  readonly #targets: WarmTargets;
  readonly #images: WarmImages;
  readonly #gate: BudgetGate;
  readonly #running = new Map<WarmTarget, ImageBytes>();
  /** What is tried again, since the upstream failed; undefined in the last attempt. */
  #failed: Item[] | undefined;
  /** How long the upstreams that failed are left alone. */
  #retryAfterMs = 0;
  /** Images that were made present. */
  readonly #present = new Map<WarmTarget, Digest>();
  #done = 0;
  #total = 0;
  /** Of images that have ended. */
  #ended = NO_BYTES;

  constructor(parts: WarmParts, request: WarmRequest, run: JobRun) {
    this.#parts = parts;
    this.#request = request;
    this.#run = run;
    this.#targets = new WarmTargets(parts, request, run);
    this.#images = new WarmImages(parts);
    this.#gate = new BudgetGate({
      ...parts,
      isWaiting: request.wait,
      signal: run.signal,
      onChange: () => this.#report(),
    });
  }

  /** @throws the signal's reason */
  async work(): Promise<void> {
    const { tags, images } = await this.#targets.read(this.#run.signal);
    this.#total = images.length;
    this.#report();
    let items: readonly Item[] = [
      // First, so that the number of images is known early.
      ...tags.map((target) => ({ kind: "tags", target }) as const),
      ...images.map((target) => ({ kind: "image", target }) as const),
    ];
    for (let attempt = 1; items.length > 0; attempt += 1) {
      const failed: Item[] = [];
      this.#failed = attempt < MAX_ATTEMPTS ? failed : undefined;
      await this.#runAll(items);
      items = failed;
      if (items.length > 0) await this.#pause();
    }
    await this.#findEvicted();
    this.#report();
  }

  /** Waits until an upstream that was down has been asked whether it is back. */
  async #pause(): Promise<void> {
    const pauseMs = Math.min(this.#retryAfterMs + PROBE_MS, MAX_PAUSE_MS);
    this.#retryAfterMs = 0;
    const { promise: slept, resolve } = Promise.withResolvers<void>();
    const cancel = this.#parts.schedule(resolve, pauseMs);
    try {
      await unlessAborted(slept, this.#run.signal);
    } finally {
      cancel();
    }
  }

  /** Keeps what failed for another attempt. @returns false if there is none, or none can succeed */
  #tryAgain(item: Item, error: unknown): boolean {
    if (this.#failed === undefined || !isTransient(error)) return false;
    this.#failed.push(item);
    const retryAfterMs = registryErrorOf(error)?.retryAfterMs ?? LEFT_ALONE_MS;
    this.#retryAfterMs = Math.max(this.#retryAfterMs, retryAfterMs);
    return true;
  }

  /** Fails images that were evicted again, to make room for those after them. */
  async #findEvicted(): Promise<void> {
    const pace = new Pace();
    for (const [{ image }, digest] of this.#present) {
      this.#run.signal.throwIfAborted();
      if (!(await this.#images.isStored(image, digest))) {
        this.#run.fail(imageText(image), EVICTED);
      }
      await pace.step();
    }
  }

  async #runAll(items: readonly Item[]): Promise<void> {
    const queues = new UpstreamQueues<Item>(
      this.#request.concurrency,
      async (item) => {
        this.#run.signal.throwIfAborted();
        if (item.kind === "image") await this.#runImage(item.target);
        else await this.#expand(item.target, queues);
      },
    );
    for (const item of items) {
      const { key } = item.kind === "image" ? item.target.image : item.target;
      queues.add(key.upstream, item);
    }
    await queues.drain();
  }

  async #expand(
    target: TagsTarget,
    queues: UpstreamQueues<Item>,
  ): Promise<void> {
    const { signal } = this.#run;
    try {
      const images = await this.#targets.expand(target, signal);
      this.#total += images.length;
      for (const image of images) {
        queues.add(target.key.upstream, { kind: "image", target: image });
      }
    } catch (error) {
      signal.throwIfAborted();
      if (this.#tryAgain({ kind: "tags", target }, error)) return;
      const { entry, key } = target;
      this.#logBug(error, entry.origin);
      this.#run.fail(
        `${entry.origin}: ${key.upstream}/${key.repository}`,
        `the tags could not be listed: ${failureText(error)}`,
      );
    }
    this.#report();
  }

  async #runImage(target: WarmTarget): Promise<void> {
    this.#running.set(target, NO_BYTES);
    this.#report();
    let isAgain = false;
    try {
      await this.#warm(target);
    } catch (error) {
      this.#run.signal.throwIfAborted();
      isAgain = this.#tryAgain({ kind: "image", target }, error);
      if (!isAgain) this.#fail(target, error);
    } finally {
      this.#end(target, !isAgain && !this.#run.signal.aborted);
    }
  }

  async #warm(target: WarmTarget): Promise<void> {
    const { withReferrers, pin, client } = this.#request;
    for (;;) {
      try {
        const digest = await this.#images.warm(target, {
          withReferrers,
          pinFor: pin ? client : undefined,
          gate: this.#gate,
          signal: this.#run.signal,
          onProgress: (progress) => {
            if (!this.#running.has(target)) return;
            this.#running.set(target, progress);
            this.#report();
          },
        });
        this.#present.set(target, digest);
        return;
      } catch (error) {
        if (registryErrorOf(error)?.code !== "TOOMANYREQUESTS") throw error;
        // What is present by now is not fetched again.
        await this.#gate.passOr(target.image, error);
      }
    }
  }

  #end(target: WarmTarget, isExamined: boolean): void {
    const { bytesDone, bytesKnown } = this.#running.get(target) ?? NO_BYTES;
    this.#running.delete(target);
    if (isExamined) {
      this.#done += 1;
      this.#ended = {
        bytesDone: this.#ended.bytesDone + bytesDone,
        bytesKnown: this.#ended.bytesKnown + bytesKnown,
      };
    }
    this.#report();
  }

  #fail({ image }: WarmTarget, error: unknown): void {
    const ref = imageText(image);
    this.#logBug(error, ref);
    this.#run.fail(ref, failureText(error));
  }

  /** Errors that the mirror does not send to clients are failures of this machine, or bugs. */
  #logBug(error: unknown, reference: string): void {
    if (error instanceof BudgetConservedError) return;
    const code = registryErrorOf(error)?.code;
    if (code !== undefined && code !== "UNKNOWN") return;
    const { id: job } = this.#run;
    this.#parts.log.warn(
      { err: error, job, reference },
      "could not warm an image because of an unexpected error",
    );
  }

  #report(): void {
    const { waitsUntilMs } = this.#gate;
    let { bytesDone: bytes, bytesKnown: bytesTotal } = this.#ended;
    for (const { bytesDone, bytesKnown } of this.#running.values()) {
      bytes += bytesDone;
      bytesTotal += bytesKnown;
    }
    this.#run.report({
      done: this.#done,
      total: this.#total,
      bytes,
      bytesTotal,
      running: [...this.#running].map(([{ image }, progress]) => ({
        ref: imageText(image),
        bytes: progress.bytesDone,
        bytesTotal: progress.bytesKnown,
      })),
      waitsUntil:
        waitsUntilMs === undefined
          ? null
          : new Date(waitsUntilMs).toISOString(),
    });
  }
}
