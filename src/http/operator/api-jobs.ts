import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Job, Jobs } from "../../images/jobs/job.ts";
import { RegistryError } from "../../oci/errors.ts";
import type { Audit } from "../../telemetry/audit.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import {
  DENIED,
  json,
  list,
  MAX_PAGE,
  object,
  pageQuery,
  problem,
  shared,
  TEXT,
  TEXT_OR_NULL,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** The parts of the program that the operator API of jobs calls. */
export interface JobsSource {
  readonly jobs: Jobs;
  readonly audit: Pick<Audit, "record">;
}

interface JobParams {
  readonly id: string;
}

interface ListQuery {
  readonly n: number;
  readonly last?: string;
}

const ONE_JOB = {
  params: {
    type: "object",
    properties: { id: { ...TEXT, description: "The id of a job." } },
  },
  response: {
    "200": json("The job.", shared("Job")),
    ...DENIED,
    "404": problem("There is no such job, or it was forgotten."),
  },
};

const SCHEMAS = {
  list: {
    summary:
      "Lists the jobs that have not ended, and the last hundred that have, newest first.",
    querystring: {
      type: "object",
      properties: {
        ...pageQuery("Jobs", "id"),
      },
    },
    response: {
      "200": json(
        "A page of jobs, each with at most ten errors; `next` is null on the last page.",
        object({ items: list(shared("Job")), next: TEXT_OR_NULL }),
      ),
      "400": problem("n or last is not valid."),
      ...DENIED,
    },
  },
  get: { summary: "Returns a job with all of its errors.", ...ONE_JOB },
  cancel: {
    summary:
      "Cancels a job; one that has ended does not change. Responds before its work has ended.",
    ...ONE_JOB,
    response: {
      ...ONE_JOB.response,
      "503": problem(
        "The index does not respond; the job was cancelled, and a restart might continue it.",
      ),
    },
  },
} satisfies Readonly<Record<string, OperationSchema>>;

/** Lists jobs, returns one, cancels one. */
export async function jobsApi(
  app: FastifyInstance,
  { jobs, audit }: JobsSource,
): Promise<void> {
  app.get<{ Querystring: ListQuery }>(
    "/api/v1/jobs",
    { schema: SCHEMAS.list },
    ({ query: { n, last } }) => jobs.list({ n: Math.min(n, MAX_PAGE), last }),
  );

  app.get<{ Params: JobParams }>(
    "/api/v1/jobs/:id",
    { schema: SCHEMAS.get },
    ({ params: { id } }) => found(jobs.get(id), id),
  );

  app.delete<{ Params: JobParams }>(
    "/api/v1/jobs/:id",
    { schema: SCHEMAS.cancel },
    async ({ params: { id }, socket }) => {
      const { endedAt } = found(jobs.get(id), id);
      if (endedAt === null) recordJob(audit, "job-cancelled", { socket }, id);
      return found(await jobs.cancel(id), id);
    },
  );
}

/** Records an operator's order about a job in the audit log. */
export function recordJob(
  audit: Pick<Audit, "record">,
  event: "job-started" | "job-cancelled",
  { socket }: Pick<FastifyRequest, "socket">,
  job: string,
): void {
  const client = canonicalAddress(socket.remoteAddress);
  audit.record({ event, client, job });
}

/** @throws RegistryError NAME_UNKNOWN */
function found(job: Job | undefined, id: string): Job {
  if (job !== undefined) return job;
  throw new RegistryError("NAME_UNKNOWN", {
    message: "no such job",
    detail: `got ${id}; expected the id of a job that GET /api/v1/jobs lists`,
  });
}
