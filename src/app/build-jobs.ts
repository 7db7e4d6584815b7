import {
  ServerJobs,
  type ServerJobsOptions,
} from "../images/jobs/server-jobs.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { Foundation } from "./foundation.ts";

/** Creates the jobs of the server, which continue those that are kept in the index. */
export function buildJobs(
  { clock, log }: Foundation,
  { cache }: BuiltStorage,
  works: ServerJobsOptions["works"],
): ServerJobs {
  return new ServerJobs({ records: cache.index, works, clock, log });
}
