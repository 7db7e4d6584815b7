import type { FastifyInstance } from "fastify";
import {
  type ImageReference,
  imageText,
} from "../../images/image-reference.ts";
import { type TagTarget, tagText } from "../../images/tag-image.ts";
import { RegistryError } from "../../oci/errors.ts";
import { REFERENCE_FORMS } from "./api-image.ts";
import {
  BAD_REF,
  DENIED,
  json,
  object,
  problem,
  REF_PARAMS,
  TEXT,
} from "./api-schemas.ts";
import { auditedImages, type ImagesSource } from "./images-source.ts";
import type { OperationSchema } from "./openapi.ts";

interface TagBody {
  readonly source: string;
  readonly target: string;
}

/** Enough for two references. */
const MAX_BODY_BYTES = 4_096;

const SCHEMAS = {
  tag: {
    summary:
      "Gives a stored image, mirrored or hosted, a tag in a hosted repository.",
    body: {
      ...object({ source: TEXT, target: TEXT }),
      additionalProperties: false,
    },
    response: {
      "200": json(
        "Tagged.",
        object({ source: TEXT, target: TEXT, digest: TEXT }),
      ),
      "400": problem(
        "A reference is not valid, or the target is not a tag of a hosted repository.",
      ),
      "401": DENIED["401"],
      "403": problem(
        "The quota of the registry is used up; or the client or the origin of the request is not allowed.",
      ),
      "404": problem("The source or a part of it is not stored."),
      "409": problem("The target is an immutable tag."),
    },
  },
  untag: {
    summary: "Deletes a tag of a hosted repository; its manifest stays.",
    params: REF_PARAMS,
    response: {
      "200": json("Deleted.", object({ ref: TEXT, digest: TEXT })),
      ...BAD_REF,
      ...DENIED,
      "404": problem("There is no such tag."),
      "409": problem("The tag is immutable."),
    },
  },
} satisfies Readonly<Record<string, OperationSchema>>;

/** Adds and deletes tags of hosted repositories. */
export async function tagsApi(
  app: FastifyInstance,
  source: ImagesSource,
): Promise<void> {
  app.post<{ Body: TagBody }>(
    "/api/v1/tags",
    { schema: SCHEMAS.tag, bodyLimit: MAX_BODY_BYTES },
    async ({ body, socket, headers, method }) => {
      const image = await readReference(source, body.source);
      const target = await readTag(source, body.target);
      const digest = await auditedImages(source, {
        socket,
        headers,
        method,
      }).tag(image, target);
      return {
        source: imageText(image),
        target: tagText(target),
        digest,
      };
    },
  );

  app.delete<{ Params: { readonly "*": string } }>(
    "/api/v1/tags/*",
    { schema: SCHEMAS.untag },
    async ({ params, socket, headers, method }) => {
      const target = await readTag(source, params["*"]);
      if (!(await source.hosted.isHosted(target.key.upstream))) {
        throw new RegistryError("UNSUPPORTED", {
          status: 400,
          detail: `got ${tagText(target)}; expected a tag of a hosted repository`,
        });
      }
      const digest = await auditedImages(source, {
        socket,
        headers,
        method,
      }).untag(target);
      if (digest === undefined) {
        throw new RegistryError("MANIFEST_UNKNOWN", {
          detail: `${tagText(target)} does not exist`,
        });
      }
      return { ref: tagText(target), digest };
    },
  );
}

/** @throws RegistryError NAME_INVALID */
async function readReference(
  { images }: ImagesSource,
  text: string,
): Promise<ImageReference> {
  const image = await images.resolve(text);
  if (image !== undefined) return image;
  throw new RegistryError("NAME_INVALID", {
    detail: `got a text that is not a reference; expected ${REFERENCE_FORMS}`,
  });
}

/** @throws RegistryError NAME_INVALID */
async function readTag(source: ImagesSource, text: string): Promise<TagTarget> {
  const { key, reference } = await readReference(source, text);
  if (reference.kind === "tag") return { key, tag: reference.tag };
  throw new RegistryError("NAME_INVALID", {
    detail: "got a digest; expected a tag of a hosted repository",
  });
}
