import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { FastifyInstance } from "fastify";
import type { JobChange, Jobs } from "../../images/jobs/job.ts";
import { RegistryError } from "../../oci/errors.ts";
import { DENIED, problem } from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** The part of the program whose changes are events. */
export interface EventsSource {
  readonly jobs: Pick<Jobs, "subscribe" | "changesSince">;
}

const MAX_STREAMS = 32;
/** Shows that the client is there, and keeps proxies from closing the connection. */
const COMMENT_EVERY_MS = 15_000;
const RETRY_MS = 2_000;
const EVENT_ID = /^([0-9a-f]{8})\.(\d{1,15})$/;

const SCHEMA = {
  summary:
    "Streams events of jobs. Begins with every listed job; with Last-Event-ID only with those that changed since. The data of an event `job` is the job as it is listed.",
  response: {
    "200": {
      description:
        "Server-sent events, until the client leaves. A client that reads slowly receives the latest state of each job.",
      content: { "text/event-stream": { schema: { type: "string" } } },
    },
    ...DENIED,
    "429": problem(`${MAX_STREAMS} clients read events already.`),
  },
} satisfies OperationSchema;

/**
 * `GET /api/v1/events`.
 *
 * @see https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export async function eventsApi(
  app: FastifyInstance,
  { jobs }: EventsSource,
): Promise<void> {
  // Numbers of changes begin again with each process.
  const run = randomBytes(4).toString("hex");
  let streams = 0;
  app.get(
    "/api/v1/events",
    // The response to HEAD would not end.
    { schema: SCHEMA, exposeHeadRoute: false },
    (request, reply) => {
      if (streams >= MAX_STREAMS) {
        throw new RegistryError("TOOMANYREQUESTS", {
          detail: `got another reader of events; expected at most ${MAX_STREAMS}`,
        });
      }
      streams += 1;
      const abort = new AbortController();
      reply.raw.once("close", () => {
        streams -= 1;
        abort.abort();
      });
      const [, lastRun, number] =
        EVENT_ID.exec(String(request.headers["last-event-id"])) ?? [];
      const last = lastRun === run ? Number(number) : -1;
      return reply.type("text/event-stream; charset=utf-8").send(
        Readable.from(eventsOf(jobs, run, last, abort.signal), {
          highWaterMark: 1,
        }),
      );
    },
  );
}

/**
 * Yields text as fast as the client reads it; the changes that wait are the latest of each job.
 *
 * @param last the number of the last change that the client knows; -1: none
 */
export async function* eventsOf(
  jobs: EventsSource["jobs"],
  run: string,
  last: number,
  signal: AbortSignal,
  commentEveryMs: number = COMMENT_EVERY_MS,
): AsyncGenerator<string> {
  const waiting = new Map<string, JobChange>();
  let wake = Promise.withResolvers<void>();
  const add = (change: JobChange): void => {
    // Set again, so that the changes stay in the order of their numbers.
    waiting.delete(change.job.id);
    waiting.set(change.job.id, change);
    wake.resolve();
  };
  const leave = (): void => wake.resolve();
  signal.addEventListener("abort", leave, { once: true });
  const unsubscribe = jobs.subscribe(add);
  try {
    yield `retry: ${RETRY_MS}\n\n`;
    for (const change of jobs.changesSince(last)) add(change);
    while (!signal.aborted) {
      const [next] = waiting.values();
      if (next === undefined) {
        wake = Promise.withResolvers();
        if (await isLate(wake.promise, commentEveryMs)) yield ":\n\n";
        continue;
      }
      waiting.delete(next.job.id);
      yield `event: job\nid: ${run}.${next.number}\ndata: ${JSON.stringify(next.job)}\n\n`;
    }
  } finally {
    unsubscribe();
    signal.removeEventListener("abort", leave);
  }
}

/** Waits for a change, or for the time of the next comment. */
async function isLate(
  change: Promise<void>,
  durationMs: number,
): Promise<boolean> {
  const abort = new AbortController();
  const { signal } = abort;
  const late = delay(durationMs, true, { signal, ref: false });
  const result = await Promise.race([
    change.then(() => false),
    late.catch(() => false),
  ]);
  abort.abort();
  return result;
}
