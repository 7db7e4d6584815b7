import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import {
  type ImageReference,
  parseImageReference,
  parseImageText,
} from "../../images/image-reference.ts";
import { AuditedImages } from "../../images/audited-images.ts";
import type { Images } from "../../images/images.ts";
import { Refusal } from "../../mirror/answers.ts";
import type { Audit } from "../../telemetry/audit.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import type { UpstreamRoutes } from "../../mirror/upstream-routes.ts";
import {
  type RegistryErrorCode,
  RegistryError,
  registryErrorBody,
} from "../../oci/errors.ts";

const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;
/** A body says how much may be kept, and no more. */
const MAX_BODY_BYTES = 4_096;

/** What the operator API of images asks of the program. */
export interface ImagesSource {
  readonly audit: Pick<Audit, "record">;
  readonly images: Pick<
    Images,
    "list" | "get" | "setPinned" | "remove" | "evict"
  >;
  readonly routes: Pick<UpstreamRoutes, "routeRepository">;
  /** Asks the upstream now. @throws Refusal */
  refresh(image: ImageReference): Promise<{
    readonly digest: string;
    readonly changed: boolean;
  }>;
}

/**
 * The images in the cache. `<ref>` is `upstream/repository:tag` or `upstream/repository@digest`.
 *
 * | request | answer |
 * |---|---|
 * | `GET /api/v1/images?q=&n=&last=` | `{images: [{ref, digest, mediaType, sizeBytes, complete, pinned, pulledAt, platforms: [{platform, digest, complete}]}], last}`; `last` leads to the next page, null at the end |
 * | `GET /api/v1/images/<ref>` | one of them with `graph: [{digest, kind, mediaType, sizeBytes, stored, parent}]` |
 * | `DELETE /api/v1/images/<ref>` | `{ref, freedBytes}` |
 * | `PUT`, `DELETE /api/v1/images/<ref>/pin` | `{ref, pinned}` |
 * | `POST /api/v1/images/<ref>/refresh` | `{ref, digest, changed}` |
 * | `POST /api/v1/evict` with `{toBytes?, dryRun?}` | `{dryRun, images: [{ref, digest, sizeBytes, pulledAt, reason}], freedBytes}` |
 */
export async function imagesApi(
  app: FastifyInstance,
  source: ImagesSource,
): Promise<void> {
  const { images, routes } = source;
  app.addHook("onRequest", async (_request, reply) => {
    reply.header("cache-control", "no-store");
  });
  app.setErrorHandler((error, _request, reply) => {
    const refusal = error instanceof Refusal ? error.error : error;
    if (refusal instanceof RegistryError) {
      return reply
        .code(refusal.status)
        .type("application/json")
        .send(refusal.toBody());
    }
    const status = statusOf(error);
    return status === undefined
      ? refuse(reply, 503, "UNAVAILABLE", "index or storage does not answer")
      : refuse(reply, status, "UNSUPPORTED", "no request of this API");
  });

  app.get<{ Querystring: Readonly<Record<string, unknown>> }>(
    "/api/v1/images",
    async (request, reply) => {
      const { q, n, last } = request.query;
      const count = n === undefined ? DEFAULT_PAGE : Number(n);
      if (!Number.isInteger(count) || count < 1) {
        return refuse(
          reply,
          400,
          "PAGINATION_NUMBER_INVALID",
          "n is 1 or more",
        );
      }
      const after = typeof last === "string" ? parseImageText(last) : undefined;
      if (last !== undefined && after === undefined) {
        return refuse(reply, 400, "NAME_INVALID", "last is no reference");
      }
      if (q !== undefined && typeof q !== "string") {
        return refuse(reply, 400, "NAME_INVALID", "q is one pattern");
      }
      const page = await images.list({
        q,
        n: Math.min(count, MAX_PAGE),
        last: after,
      });
      return reply.send({ images: page.images, last: page.last ?? null });
    },
  );

  app.get<Wildcard>("/api/v1/images/*", async (request, reply) => {
    const image = readReference(request.params["*"], "");
    if (image === undefined) return noReference(reply);
    const found = await images.get(image.reference);
    return found === undefined ? absent(reply) : reply.send(found);
  });

  app.delete<Wildcard>("/api/v1/images/*", async (request, reply) => {
    const path = request.params["*"];
    const pin = readReference(path, "/pin");
    if (pin !== undefined) return setPinned(request, reply, pin, false);
    const image = readReference(path, "");
    if (image === undefined) return noReference(reply);
    const freedBytes = await ordered(request).remove(image.reference);
    if (freedBytes === undefined) return absent(reply);
    return reply.send({ ref: image.text, freedBytes });
  });

  app.put<Wildcard>("/api/v1/images/*", async (request, reply) => {
    const image = readReference(request.params["*"], "/pin");
    return image === undefined
      ? noReference(reply)
      : setPinned(request, reply, image, true);
  });

  app.post<Wildcard>("/api/v1/images/*", async (request, reply) => {
    const image = readReference(request.params["*"], "/refresh");
    if (image === undefined) return noReference(reply);
    const { digest, changed } = await source.refresh(image.reference);
    return reply.send({ ref: image.text, digest, changed });
  });

  app.post<{ Body: unknown }>(
    "/api/v1/evict",
    { bodyLimit: MAX_BODY_BYTES },
    async (request, reply) => {
      const asked = readEviction(request.body);
      if (asked === undefined) {
        return refuse(
          reply,
          400,
          "UNSUPPORTED",
          "the body is {toBytes?: bytes, dryRun?: boolean}",
        );
      }
      const report = await ordered(request).evict(asked);
      return reply.send({ dryRun: asked.isDryRun, ...report });
    },
  );

  const setPinned = async (
    request: FastifyRequest,
    reply: FastifyReply,
    image: NamedReference,
    pinned: boolean,
  ): Promise<FastifyReply> => {
    const isThere = await ordered(request).setPinned(image.reference, pinned);
    if (!isThere) return absent(reply);
    return reply.send({ ref: image.text, pinned });
  };

  const ordered = ({ socket }: FastifyRequest): AuditedImages =>
    new AuditedImages(
      images,
      source.audit,
      canonicalAddress(socket.remoteAddress),
    );

  const readReference = (
    path: string,
    suffix: string,
  ): NamedReference | undefined => {
    if (!path.endsWith(suffix)) return undefined;
    const text = path.slice(0, path.length - suffix.length);
    const reference = parseImageReference(text, routes);
    return reference && { reference, text };
  };
}

interface Wildcard {
  Params: { readonly "*": string };
}

interface NamedReference {
  readonly reference: ImageReference;
  readonly text: string;
}

function readEviction(
  body: unknown,
): { toBytes: number | undefined; isDryRun: boolean } | undefined {
  if (body === undefined || body === null) {
    return { toBytes: undefined, isDryRun: false };
  }
  if (typeof body !== "object" || Array.isArray(body)) return undefined;
  const { toBytes, dryRun, ...rest } = body as {
    readonly toBytes?: unknown;
    readonly dryRun?: unknown;
  };
  const isSize =
    toBytes === undefined ||
    (typeof toBytes === "number" &&
      Number.isSafeInteger(toBytes) &&
      toBytes >= 0);
  const isFlag = dryRun === undefined || typeof dryRun === "boolean";
  return isSize && isFlag && Object.keys(rest).length === 0
    ? { toBytes, isDryRun: dryRun === true }
    : undefined;
}

/** What fastify refuses by itself: a body that is too long or no JSON. */
function statusOf(error: unknown): number | undefined {
  return error instanceof Error &&
    "statusCode" in error &&
    typeof error.statusCode === "number" &&
    error.statusCode < 500
    ? error.statusCode
    : undefined;
}

function noReference(reply: FastifyReply): FastifyReply {
  return refuse(
    reply,
    400,
    "NAME_INVALID",
    "a reference is upstream/repository:tag or upstream/repository@digest",
  );
}

function absent(reply: FastifyReply): FastifyReply {
  return refuse(
    reply,
    404,
    "MANIFEST_UNKNOWN",
    "not cached as an image of its own",
  );
}

function refuse(
  reply: FastifyReply,
  status: number,
  code: RegistryErrorCode,
  detail: string,
): FastifyReply {
  return reply
    .code(status)
    .type("application/json")
    .send(registryErrorBody(code, undefined, detail));
}
