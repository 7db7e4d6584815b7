import { AuditedImages } from "../images/audited-images.ts";
import type { ImageServices } from "../images/create-images.ts";
import { ServerJobs } from "../images/jobs/server-jobs.ts";
import { parseListAside } from "../images/lists/parse-list-aside.ts";
import type { PlanParts, WarmPlan } from "../images/warm/warm-plan.ts";
import type { WarmRequest } from "../images/warm/warm-request.ts";
import { WarmSchedule } from "../images/warm/warm-schedule.ts";
import type { WarmParts } from "../images/warm/warm-work.ts";
import { scheduleUnref } from "../telemetry/clock.ts";
import type { BuiltMirror } from "./build-mirror.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { BuiltUpstreams } from "./build-upstreams.ts";
import type { Foundation } from "./foundation.ts";
import { namesUpstream } from "./upstream-set.ts";

/** The sender of a job's orders: notifications have no fields for it. */
const JOB_SENDER = {
  user: undefined,
  userAgent: undefined,
  host: undefined,
  method: "POST",
};

export interface BuiltWarm {
  readonly jobs: ServerJobs;
  /** Starts the jobs of the configuration. */
  readonly warmSchedule: WarmSchedule;
  /** Finds what a job would fetch. */
  readonly planWarm: (
    request: WarmRequest,
    signal: AbortSignal,
  ) => Promise<WarmPlan>;
}

/**
 * Creates the jobs of the server, with those that are kept in the index (none runs yet), and what makes
 * images of lists present: its code is loaded with the first order.
 */
export async function buildWarm({
  foundation,
  upstreams: { set, routes },
  storage,
  mirror: { mirror },
  images: { hosted, orders },
}: {
  readonly foundation: Foundation;
  readonly upstreams: BuiltUpstreams;
  readonly storage: BuiltStorage;
  readonly mirror: BuiltMirror;
  readonly images: ImageServices;
}): Promise<BuiltWarm> {
  const { live, overrides, clock, log } = foundation;
  const { index } = storage.cache;
  const { warmSchedule: schedule = scheduleUnref } = overrides;
  const parts: WarmParts & PlanParts = {
    mirror,
    index,
    routes,
    parseList: parseListAside,
    isUpstream: (name) => namesUpstream(set, name),
    isHosted: (name) => hosted.isHosted(name),
    isStored: async ({ key, reference }) =>
      (await index.getRoot(key, reference)) !== undefined,
    isOffline: () => live.config.offline,
    pin: (image, client) =>
      new AuditedImages(orders, { ...JOB_SENDER, client }).setPinned(
        image,
        true,
      ),
    clock,
    log,
    schedule,
  };
  const jobs = new ServerJobs({
    records: index,
    works: {
      warm: async () => {
        const { createWarmWork } = await import("../images/warm/warm-work.ts");
        return createWarmWork(parts);
      },
    },
    clock,
    log,
  });
  await jobs.open();
  return {
    jobs,
    warmSchedule: new WarmSchedule({
      lists: () => live.config.warm,
      jobs,
      clock,
      log,
      schedule,
    }),
    planWarm: async (request, signal) => {
      const { planWarm } = await import("../images/warm/warm-plan.ts");
      return planWarm(parts, request, signal);
    },
  };
}
