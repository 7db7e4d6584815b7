import type { FastifyInstance } from "fastify";
import {
  type ImageReference,
  parseImageText,
} from "../../images/image-reference.ts";
import { RegistryError } from "../../oci/errors.ts";
import { auditedImages, type ImagesSource } from "./images-source.ts";
import {
  BYTES,
  DENIED,
  FLAG,
  json,
  list,
  MAX_PAGE,
  object,
  pageQuery,
  optionalBody,
  problem,
  shared,
  TEXT,
  TEXT_OR_NULL,
  TIME,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** Enough for an eviction target. */
const MAX_BODY_BYTES = 4_096;

interface ListQuery {
  readonly q?: string;
  readonly n: number;
  readonly last?: string;
}

interface EvictBody {
  readonly toBytes?: number;
  readonly dryRun?: boolean;
}

const SCHEMAS = {
  list: {
    summary: "Lists the cached images by name.",
    querystring: {
      type: "object",
      properties: {
        q: {
          ...TEXT,
          description:
            "A glob over upstream/repository[:tag]; a text without * matches anywhere in the reference.",
        },
        ...pageQuery("Images", "reference"),
      },
    },
    response: {
      "200": json(
        "A page of images; `last` is null on the last page.",
        object({ images: list(shared("Image")), last: TEXT_OR_NULL }),
      ),
      "400": problem("q, n or last is not valid."),
      ...DENIED,
    },
  },
  evict: {
    summary: "Evicts images now, or lists those that an eviction would remove.",
    body: optionalBody({
      toBytes: { ...BYTES, maximum: Number.MAX_SAFE_INTEGER },
      dryRun: FLAG,
    }),
    response: {
      "200": json(
        "The evicted images.",
        object({
          dryRun: FLAG,
          images: list(
            object({
              ref: TEXT,
              digest: TEXT,
              sizeBytes: BYTES,
              pulledAt: TIME,
              reason: {
                type: "string",
                enum: ["size", "free", "idle", "operator", "index"],
              },
            }),
          ),
          freedBytes: BYTES,
        }),
      ),
      "400": problem("The body is not valid."),
      ...DENIED,
    },
  },
} satisfies Readonly<Record<string, OperationSchema>>;

/** Lists and evicts the cached images. */
export async function imagesApi(
  app: FastifyInstance,
  source: ImagesSource,
): Promise<void> {
  app.get<{ Querystring: ListQuery }>(
    "/api/v1/images",
    { schema: SCHEMAS.list },
    async ({ query: { q, n, last } }) => {
      const page = await source.images.list({
        q,
        n: Math.min(n, MAX_PAGE),
        last: last === undefined ? undefined : readLast(last),
      });
      return { images: page.images, last: page.last ?? null };
    },
  );

  app.post<{ Body: EvictBody | null | undefined }>(
    "/api/v1/evict",
    { schema: SCHEMAS.evict, bodyLimit: MAX_BODY_BYTES },
    async ({ body, socket, headers, method }) => {
      const { toBytes, dryRun = false } = body ?? {};
      const report = await auditedImages(source, {
        socket,
        headers,
        method,
      }).evict({
        toBytes,
        isDryRun: dryRun,
      });
      return { dryRun, ...report };
    },
  );
}

/** @throws RegistryError NAME_INVALID */
function readLast(text: string): ImageReference {
  const reference = parseImageText(text);
  if (reference === undefined) {
    throw new RegistryError("NAME_INVALID", {
      detail: "last is not a reference; expected the last of the previous page",
    });
  }
  return reference;
}
