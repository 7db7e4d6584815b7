import type { FastifyInstance } from "fastify";
import { RegistryError } from "../../oci/errors.ts";
import {
  BYTES,
  COUNT,
  DENIED,
  FLAG,
  json,
  list,
  object,
  optionalBody,
  problem,
  TEXT,
  TEXT_OR_NULL,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** The report of a scrub, as `entrepot scrub --json` prints it. */
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

/** The parts of the program that the operator API of the scrub calls. */
export interface ScrubSource {
  /** Verifies all stored content; stops when the signal aborts. */
  scrub(options: {
    readonly isRepair: boolean;
    readonly signal: AbortSignal;
  }): Promise<ScrubAnswer>;
}

const MAX_BODY_BYTES = 4_096;

const SCHEMA = {
  summary:
    "Hashes every blob and compares the index with the result; responds when it is done.",
  body: optionalBody({ repair: FLAG }),
  response: {
    "200": json(
      "The findings.",
      object({
        blobs: COUNT,
        bytes: BYTES,
        findings: list(
          object({
            code: TEXT,
            path: TEXT,
            digest: TEXT_OR_NULL,
            repaired: FLAG,
          }),
        ),
      }),
    ),
    "400": problem("The body is not valid."),
    ...DENIED,
    "503": problem(
      "Another scrub is running, or index or storage does not respond.",
    ),
  },
} satisfies OperationSchema;

/**
 * `POST /api/v1/scrub` with `{"repair": true}`, or without a body to change nothing. Responds with
 * the report when the scrub is done, however long that takes. One scrub runs at a time; it stops
 * when the client closes its connection.
 */
export async function scrubApi(
  app: FastifyInstance,
  source: ScrubSource,
): Promise<void> {
  let isRunning = false;
  app.post<{ Body: { readonly repair?: boolean } | null | undefined }>(
    "/api/v1/scrub",
    { schema: SCHEMA, bodyLimit: MAX_BODY_BYTES },
    async (request, reply) => {
      if (isRunning) {
        throw new RegistryError("UNAVAILABLE", {
          status: 503,
          detail: "another scrub is running; retry when it has ended",
        });
      }
      const abort = new AbortController();
      reply.raw.once("close", () => abort.abort());
      isRunning = true;
      try {
        return await source.scrub({
          isRepair: request.body?.repair ?? false,
          signal: abort.signal,
        });
      } finally {
        isRunning = false;
      }
    },
  );
}
