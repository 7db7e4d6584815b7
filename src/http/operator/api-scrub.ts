import type { FastifyInstance } from "fastify";
import { registryErrorBody } from "../../oci/errors.ts";

/** As `entrepot scrub --json` prints it. */
export interface ScrubAnswer {
  readonly blobs: number;
  readonly bytes: number;
  readonly findings: readonly {
    readonly code: string;
    readonly path: string;
    readonly digest: string | null;
    readonly repaired: boolean;
  }[];
}

/** What the operator API of the scrub asks of the program. */
export interface ScrubSource {
  /** Compares all that is stored; ends when the signal aborts. */
  scrub(options: {
    readonly isRepair: boolean;
    readonly signal: AbortSignal;
  }): Promise<ScrubAnswer>;
}

const MAX_BODY_BYTES = 4_096;

/**
 * `POST /api/v1/scrub` with `{"repair": true}`, or no body for a look: answers the report when it
 * is done, however long that takes. One at a time; it ends with the connection of whoever asked.
 */
export async function scrubApi(
  app: FastifyInstance,
  source: ScrubSource,
): Promise<void> {
  let isRunning = false;
  app.post<{ Body: unknown }>(
    "/api/v1/scrub",
    { bodyLimit: MAX_BODY_BYTES },
    async (request, reply) => {
      reply.header("cache-control", "no-store").type("application/json");
      const isRepair = parseRepair(request.body);
      if (isRepair === undefined) {
        return reply
          .code(400)
          .send(
            registryErrorBody("UNSUPPORTED", '{"repair": true} or no body'),
          );
      }
      if (isRunning) {
        return reply
          .code(503)
          .send(registryErrorBody("UNAVAILABLE", "a scrub is running"));
      }
      const abort = new AbortController();
      reply.raw.once("close", () => abort.abort());
      isRunning = true;
      try {
        const { signal } = abort;
        return await reply.send(await source.scrub({ isRepair, signal }));
      } catch {
        return await reply
          .code(503)
          .send(
            registryErrorBody(
              "UNAVAILABLE",
              "index or storage does not answer",
            ),
          );
      } finally {
        isRunning = false;
      }
    },
  );
}

function parseRepair(body: unknown): boolean | undefined {
  if (body === undefined || body === null) return false;
  if (typeof body !== "object") return undefined;
  const { repair = false, ...others } = body as Record<string, unknown>;
  return typeof repair === "boolean" && Object.keys(others).length === 0
    ? repair
    : undefined;
}
