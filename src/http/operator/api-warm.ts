import type { FastifyInstance, FastifyRequest } from "fastify";
import { LIST_FORMATS, type ListText } from "../../images/lists/list-entry.ts";
import type { WarmPlan } from "../../images/warm/warm-plan.ts";
import {
  DEFAULT_WARM_CONCURRENCY,
  MAX_WARM_BYTES,
  MAX_WARM_CONCURRENCY,
  MAX_WARM_IMAGES,
  MAX_WARM_PLATFORMS,
  type WarmRequest,
} from "../../images/warm/warm-request.ts";
import { RegistryError } from "../../oci/errors.ts";
import { PLATFORM_PATTERN } from "../../oci/platform.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import { type JobsSource, recordJob } from "./api-jobs.ts";
import {
  BYTES,
  COUNT,
  DENIED,
  FLAG,
  INTEGER_OR_NULL,
  json,
  list,
  object,
  problem,
  shared,
  TEXT,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

const MAX_LISTS = 100;
/** Each asks its upstreams for every image. */
const MAX_DRY_RUNS = 4;

/** The parts of the program that warm jobs need. */
export interface WarmSource extends JobsSource {
  /** Finds what a job would fetch. @throws the signal's reason */
  planWarm(request: WarmRequest, signal: AbortSignal): Promise<WarmPlan>;
}

interface WarmBody extends Partial<
  Pick<
    WarmRequest,
    | "concurrency"
    | "lists"
    | "pin"
    | "platforms"
    | "refs"
    | "wait"
    | "withReferrers"
  >
> {
  readonly dryRun?: boolean;
}

const COUNTS = {
  manifests: COUNT,
  blobs: COUNT,
  bytes: BYTES,
  pulls: {
    ...COUNT,
    description: "Requests that count for the pull budget of the upstream.",
  },
  isPartial: {
    ...FLAG,
    description:
      "A manifest was not read, because that costs a pull: what it names is not counted.",
  },
};

const SCHEMA = {
  summary:
    "Starts a job that makes images present in the cache; `dryRun` counts what it would fetch instead.",
  body: {
    ...object(
      {
        lists: {
          ...list({
            ...object(
              {
                name: { ...TEXT, maxLength: 1_024 },
                text: TEXT,
                format: { type: "string", enum: LIST_FORMATS },
              },
              ["name", "text"],
            ),
            additionalProperties: false,
          }),
          maxItems: MAX_LISTS,
        },
        refs: {
          ...list({ ...TEXT, maxLength: 1_024 }),
          maxItems: MAX_WARM_IMAGES,
        },
        platforms: {
          ...list({ ...TEXT, pattern: PLATFORM_PATTERN }),
          maxItems: MAX_WARM_PLATFORMS,
        },
        withReferrers: FLAG,
        concurrency: {
          type: "integer",
          minimum: 1,
          maximum: MAX_WARM_CONCURRENCY,
          default: DEFAULT_WARM_CONCURRENCY,
          description: "Images of one registry that are fetched concurrently.",
        },
        wait: {
          ...FLAG,
          description:
            "Waits when the rest of an upstream's pull budget is kept for clients; otherwise the images that cost pulls fail.",
        },
        pin: FLAG,
        dryRun: FLAG,
      },
      [],
    ),
    additionalProperties: false,
  },
  response: {
    "200": json(
      "What the job would fetch; `images` has those that are not completely stored, at most 10000.",
      object({
        images: list(object({ ref: TEXT, ...COUNTS })),
        upstreams: list(
          object({
            name: TEXT,
            images: COUNT,
            present: COUNT,
            ...COUNTS,
            pullsLeft: INTEGER_OR_NULL,
          }),
        ),
        errors: list(object({ ref: TEXT, message: TEXT })),
        errorCount: COUNT,
        notes: list(object({ ref: TEXT, message: TEXT })),
      }),
    ),
    "202": json("The job.", shared("Job")),
    "400": problem("The body is not valid, or names no image."),
    ...DENIED,
    "413": problem("The body is longer than 16 MiB."),
    "429": problem("Too many jobs have not ended, or too many dry runs."),
    "503": problem("The index does not respond."),
  },
} satisfies OperationSchema;

/** `POST /api/v1/warm`: lists come as texts, since the server opens no path that a request names. */
export async function warmApi(
  app: FastifyInstance,
  source: WarmSource,
): Promise<void> {
  let dryRuns = 0;
  const planWarm = async (
    order: WarmRequest,
    signal: AbortSignal,
  ): Promise<WarmPlan> => {
    if (dryRuns >= MAX_DRY_RUNS) {
      throw new RegistryError("TOOMANYREQUESTS", {
        detail: `got another dry run; expected at most ${MAX_DRY_RUNS} at a time: try again later`,
      });
    }
    dryRuns += 1;
    try {
      return await source.planWarm(order, signal);
    } finally {
      dryRuns -= 1;
    }
  };
  app.post<{ Body: WarmBody }>(
    "/api/v1/warm",
    { schema: SCHEMA, bodyLimit: MAX_WARM_BYTES },
    async (request, reply) => {
      const order = readOrder(request);
      if (request.body.dryRun === true) {
        const abort = new AbortController();
        reply.raw.once("close", () => abort.abort());
        return planWarm(order, abort.signal);
      }
      const job = await source.jobs.start("warm", order);
      recordJob(source.audit, "job-started", request, job.id);
      return reply
        .code(202)
        .header("Location", `/api/v1/jobs/${job.id}`)
        .send(job);
    },
  );
}

/** @throws RegistryError UNSUPPORTED if the order names no image */
function readOrder({
  body,
  socket,
}: Pick<FastifyRequest<{ Body: WarmBody }>, "body" | "socket">): WarmRequest {
  const lists: readonly ListText[] = body.lists ?? [];
  const refs = body.refs ?? [];
  if (lists.length + refs.length === 0) {
    throw new RegistryError("UNSUPPORTED", {
      status: 400,
      detail: "got neither lists nor refs; expected at least one of them",
    });
  }
  return {
    lists,
    refs,
    platforms: body.platforms ?? [],
    withReferrers: body.withReferrers ?? false,
    concurrency: body.concurrency ?? DEFAULT_WARM_CONCURRENCY,
    wait: body.wait ?? false,
    pin: body.pin ?? false,
    client: canonicalAddress(socket.remoteAddress),
    faults: [],
  };
}
