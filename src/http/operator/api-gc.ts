import type { FastifyInstance } from "fastify";
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
} from "./api-schemas.ts";
import { auditedImages, type ImagesSource } from "./images-source.ts";
import type { OperationSchema } from "./openapi.ts";

const MAX_BODY_BYTES = 4_096;

const SCHEMA = {
  summary:
    "Applies retention and frees the space of hosted content that nothing needs; responds at the end.",
  body: optionalBody({ dryRun: FLAG }),
  response: {
    "200": json(
      "The tags and manifests that were deleted and the space that was freed, or would be. `deletions` counts all, `deleted` lists at most 10000.",
      object({
        dryRun: FLAG,
        deleted: list(object({ ref: TEXT, reason: TEXT })),
        deletions: COUNT,
        blobs: COUNT,
        bytes: BYTES,
      }),
    ),
    "400": problem("The body is not valid."),
    ...DENIED,
    "503": problem("The index or the storage does not respond."),
  },
} satisfies OperationSchema;

/** `POST /api/v1/gc`: with `{"dryRun": true}` a preview, without a body a collection. Ends if its client leaves. */
export async function gcApi(
  app: FastifyInstance,
  source: ImagesSource,
): Promise<void> {
  app.post<{ Body: { readonly dryRun?: boolean } | null | undefined }>(
    "/api/v1/gc",
    { schema: SCHEMA, bodyLimit: MAX_BODY_BYTES },
    async (request, reply) => {
      const isDryRun = request.body?.dryRun ?? false;
      const abort = new AbortController();
      reply.raw.once("close", () => abort.abort());
      const report = await auditedImages(source, request).collect({
        isDryRun,
        signal: abort.signal,
      });
      return { dryRun: isDryRun, ...report };
    },
  );
}
