import type {
  OperatorSources,
  Readiness,
} from "../http/operator/operator-routes.ts";
import { TrackedExports } from "../images/bundles/export/tracked-exports.ts";
import { TrackedImports } from "../images/bundles/import/tracked-imports.ts";
import type { Jobs } from "../images/jobs/job.ts";
import { refreshImage } from "../images/refresh-image.ts";
import type { BuiltImages } from "./build-images.ts";
import type { BuiltMirror } from "./build-mirror.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { BuiltUpstreams } from "./build-upstreams.ts";
import type { Foundation } from "./foundation.ts";
import {
  judgeReadiness,
  refreshBudgets,
  refreshMetrics,
} from "./observation.ts";
import { statusReporter } from "./report-status.ts";
import { namesUpstream } from "./upstream-set.ts";

/** Collects what the operator API reads and changes. */
export function operatorSources(parts: {
  readonly foundation: Foundation;
  readonly upstreams: BuiltUpstreams;
  readonly storage: BuiltStorage;
  readonly mirror: BuiltMirror;
  readonly images: BuiltImages;
  readonly jobs: Jobs;
  readonly planWarm: OperatorSources["planWarm"];
  readonly isDraining: () => boolean;
}): OperatorSources {
  const { metrics, audit } = parts.foundation;
  const { set } = parts.upstreams;
  const { cache, evictor, room } = parts.storage;
  const { mirror, scrubbing } = parts.mirror;
  const { images, hosted, orders, openExport } = parts.images;
  return {
    upstreams: () => set.mirrored.map(({ client }) => client.status()),
    images,
    jobs: parts.jobs,
    planWarm: parts.planWarm,
    wishes: parts.images.wishes,
    audit,
    orders,
    hosted,
    refresh: (image) =>
      refreshImage(mirror, (name) => namesUpstream(set, name), image),
    scrub: scrubbing.scrub,
    imports: new TrackedImports(parts.images.importBundle, parts.jobs),
    exports: new TrackedExports({ open: openExport, jobs: parts.jobs, audit }),
    status: statusReporter(parts),
    refreshMetrics: async () => {
      refreshBudgets(set.mirrored, metrics);
      await evictor.limitBytes();
      await refreshMetrics(cache, metrics);
    },
    readiness: async (): Promise<Readiness> =>
      parts.isDraining()
        ? { isReady: false, detail: { server: "draining" } }
        : judgeReadiness(cache, room, metrics),
  };
}
