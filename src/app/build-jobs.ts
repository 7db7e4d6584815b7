import {
  ServerJobs,
  type ServerJobsOptions,
} from "../images/jobs/server-jobs.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { Foundation } from "./foundation.ts";

/** Creates the jobs of the server, with those that are kept in the index; none runs yet. */
export async function buildJobs(
  { clock, log }: Foundation,
  { cache }: BuiltStorage,
  works: ServerJobsOptions["works"],
): Promise<ServerJobs> {
  const jobs = new ServerJobs({ records: cache.index, works, clock, log });
  await jobs.open();
  return jobs;
}
