import type { HostedConfig } from "../../config/config.ts";
import type { Audit } from "../../telemetry/audit.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { EventSink, Sender } from "../hosted.ts";
import {
  type DueDeletion,
  type RetentionIndex,
  walkRegistry,
} from "./due-deletions.ts";

export interface RetentionOptions {
  readonly index: RetentionIndex;
  /** Returns the registries as they are configured now. */
  readonly registries: () => readonly HostedConfig[];
  readonly clock: Clock;
  readonly log: Pick<Logger, "debug" | "info" | "warn">;
  readonly audit: Pick<Audit, "record">;
  readonly onEvent: EventSink;
}

/** A tag or manifest that retention deletes. */
export interface RetentionDeletion {
  /** As an operator writes it: `local/team/app:v1`, or `local/team/app@sha256:…`. */
  readonly ref: string;
  /** The rule that decided, as the operator reads it: `ci/**: not among the newest 10`. */
  readonly reason: string;
}

/** Bounds a report's memory. */
const MAX_LISTED_DELETIONS = 10_000;

export interface RetentionResult {
  /** At most {@link MAX_LISTED_DELETIONS}. */
  readonly listed: readonly RetentionDeletion[];
  readonly count: number;
}

/** `half`: on schedule. `none`: on schedule, and the clock was set forward recently. */
export type TimedShare = keyof typeof TIMED_SHARES;

export interface RetentionRun {
  readonly signal?: AbortSignal | undefined;
  /** Absent: all registries that have rules. */
  readonly registry?: string;
}

const SENDER: Sender = {
  user: "retention",
  client: undefined,
  userAgent: undefined,
  host: undefined,
  method: "DELETE",
};

/** A wrong clock must not empty a registry: a scheduled run deletes at most half of it because of age. */
const TIMED_SHARES = { all: Infinity, half: 0.5, none: 0 } as const;

/** Deletes the tags and manifests of hosted repositories that the rules of `retention` do not keep. */
export class Retention {
  readonly #options: RetentionOptions;
  /** The last run; runs execute one at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #isStopped = false;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  /** Returns the deletions that {@link apply} would make now, and changes nothing. */
  async plan(run: RetentionRun = {}): Promise<RetentionResult> {
    const list = new DeletionList();
    for (const config of this.#registries(run)) {
      await walkRegistry(config, this.#walkOptions(run), async (_kind, due) => {
        if (due !== undefined) list.add(due);
      });
    }
    return list;
  }

  /**
   * Deletes the tags and manifests that the rules do not keep, one at a time. Each deletion is durable
   * before the next one starts, so the run may end after any of them.
   *
   * @param timed the share of a registry that may be deleted because of its age
   */
  apply(
    run: RetentionRun & { readonly timed: TimedShare },
  ): Promise<RetentionResult> {
    const done = this.#last.then(async () => {
      const list = new DeletionList();
      for (const config of this.#registries(run)) {
        await this.#applyTo(config, run, list);
      }
      return list;
    });
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** Resolves when the running run has ended, after at most one more deletion. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#last;
  }

  async #applyTo(
    config: HostedConfig,
    run: RetentionRun & { readonly timed: TimedShare },
    list: DeletionList,
  ): Promise<void> {
    const startMs = this.#options.clock.monotonicMs();
    const before = list.count;
    const budget =
      run.timed === "all" ? undefined : await this.#measure(config, run);
    const counts = { tags: 0, manifests: 0 };
    await walkRegistry(config, this.#walkOptions(run), async (kind, due) => {
      if (due === undefined || budget?.isSpent(due) === true) return;
      if (!(await this.#delete(due))) return;
      list.add(due);
      counts[`${kind}s`] += 1;
    });
    const { log, clock } = this.#options;
    if (list.count > before) {
      log.info(
        {
          registry: config.name,
          ...counts,
          durationMs: Math.round(clock.monotonicMs() - startMs),
        },
        "retention deleted tags and manifests of a hosted registry",
      );
    }
    if (budget !== undefined && budget.left > 0) {
      log.warn(
        { registry: config.name, left: budget.left },
        "scheduled retention reached its limit of deletions by age; run 'entrepot gc' to delete the rest now",
      );
    }
  }

  async #measure(
    config: HostedConfig,
    run: RetentionRun & { readonly timed: TimedShare },
  ): Promise<TimedBudget> {
    const budget = new TimedBudget(TIMED_SHARES[run.timed]);
    await walkRegistry(config, this.#walkOptions(run), async (kind) => {
      budget.count(kind);
    });
    return budget;
  }

  async #delete(due: DueDeletion): Promise<boolean> {
    const { index, log, audit, onEvent } = this.#options;
    const { key, isImmutable, row, reason } = due;
    const { kind: outcome } =
      due.kind === "tag"
        ? await index.deleteHostedTag(key, due.row.tag, isImmutable, due.row)
        : await index.deleteHostedManifest(
            key,
            due.row.digest,
            isImmutable,
            due.row,
          );
    if (outcome !== "deleted") return false;
    onEvent({
      action: "delete",
      key,
      digest: due.kind === "tag" ? undefined : row.digest,
      tag: due.kind === "tag" ? due.row.tag : undefined,
      mediaType: undefined,
      sizeBytes: undefined,
      from: undefined,
      sender: SENDER,
    });
    const reference = refOf(due);
    audit.record({
      event: "deleted",
      client: "retention",
      reference,
      digest: row.digest,
    });
    log.debug({ reference, reason }, "retention deleted a tag or manifest");
    return true;
  }

  #registries({ registry }: RetentionRun): readonly HostedConfig[] {
    return this.#options
      .registries()
      .filter(
        ({ name, retention }) =>
          retention !== undefined &&
          (registry === undefined || registry === name),
      );
  }

  #walkOptions({ signal }: RetentionRun) {
    const { index, clock } = this.#options;
    return {
      index,
      nowMs: clock.nowMs(),
      isOver: () => this.#isStopped || signal?.aborted === true,
    };
  }
}

/** Counts every deletion, and lists the first ones. */
class DeletionList implements RetentionResult {
  readonly listed: RetentionDeletion[] = [];
  count = 0;

  add(due: DueDeletion): void {
    this.count += 1;
    if (this.listed.length < MAX_LISTED_DELETIONS)
      this.listed.push({ ref: refOf(due), reason: due.reason });
  }
}

/** The number of tags and manifests that one scheduled run may delete because of their age. */
class TimedBudget {
  readonly #share: number;
  readonly #counted = { tag: 0, manifest: 0 };
  readonly #used = { tag: 0, manifest: 0 };
  /** Deletions that exceeded the budget and were not made. */
  left = 0;

  constructor(share: number) {
    this.#share = share;
  }

  count(kind: DueDeletion["kind"]): void {
    this.#counted[kind] += 1;
  }

  /** Returns whether the budget is spent for this deletion, and otherwise uses one part of it. */
  isSpent({ kind, isTimed }: DueDeletion): boolean {
    if (!isTimed) return false;
    if (this.#used[kind] >= Math.floor(this.#counted[kind] * this.#share)) {
      this.left += 1;
      return true;
    }
    this.#used[kind] += 1;
    return false;
  }
}

function refOf(due: DueDeletion): string {
  const { upstream, repository } = due.key;
  return due.kind === "tag"
    ? `${upstream}/${repository}:${due.row.tag}`
    : `${upstream}/${repository}@${due.row.digest}`;
}
