import type { UpstreamClient } from "../upstream/client.ts";
import type { FreshnessPolicy } from "./freshness.ts";
import type { PullPolicy } from "./pull-policy.ts";

/** One upstream as the mirror's rooms see it. */
export interface MirroredUpstream {
  /** The key in the configuration, and the first half of every repository's key. */
  readonly name: string;
  /** In the place of the name in metrics: those of one template are counted together. */
  readonly metricLabel: string;
  readonly client: UpstreamClient;
  readonly freshness: FreshnessPolicy;
  readonly mayPull: PullPolicy;
  /** Bodies that may be downloaded at once; 0: unlimited. */
  readonly concurrency: number;
}
