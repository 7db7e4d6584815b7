import type { UpstreamClient } from "../upstream/client.ts";
import type { FreshnessPolicy } from "./freshness.ts";
import type { PullPolicy } from "./pull-policy.ts";

/** One upstream as the rest of the mirror sees it. */
export interface MirroredUpstream {
  /** The key in the configuration, and the first half of every repository's key. */
  readonly name: string;
  /** Replaces the name in metrics: the upstreams of one template are counted together. */
  readonly metricLabel: string;
  readonly client: UpstreamClient;
  readonly freshness: FreshnessPolicy;
  readonly mayPull: PullPolicy;
  /** Bodies that may be downloaded concurrently; 0: unlimited. */
  readonly concurrency: number;
}
