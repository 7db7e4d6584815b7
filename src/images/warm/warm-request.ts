import type { ListFault, ListText } from "../lists/list-entry.ts";

/** An order to make images present. It is kept as JSON while its job waits or runs. */
export interface WarmRequest {
  readonly lists: readonly ListText[];
  readonly refs: readonly string[];
  /** As `linux/arm64`, for entries without platforms of their own; empty: every platform. */
  readonly platforms: readonly string[];
  readonly withReferrers: boolean;
  /** Images of one registry that are fetched concurrently. */
  readonly concurrency: number;
  /** Whether the job waits when the pull budget of an upstream is nearly used up. */
  readonly wait: boolean;
  readonly pin: boolean;
  /** The source of the order, for the audit log. */
  readonly client: string;
  /** Lists that could not be read; the job reports them. */
  readonly faults: readonly ListFault[];
}

export const DEFAULT_WARM_CONCURRENCY = 4;
export const MAX_WARM_CONCURRENCY = 16;
/** The text of all lists together. */
export const MAX_WARM_BYTES = 16 * 1024 * 1024;
export const MAX_WARM_PLATFORMS = 32;
/** Images of one job, those of expanded tag lists included. */
export const MAX_WARM_IMAGES = 100_000;
