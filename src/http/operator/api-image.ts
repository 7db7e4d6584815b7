import type { FastifyInstance, FastifyRequest } from "fastify";
import {
  type ImageReference,
  imageText,
} from "../../images/image-reference.ts";
import { RegistryError } from "../../oci/errors.ts";
import { auditedImages, type ImagesSource } from "./images-source.ts";
import {
  BAD_REF,
  BYTES,
  DENIED,
  FLAG,
  json,
  MISSING,
  object,
  problem,
  REF_PARAMS,
  shared,
  TEXT,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

interface Wildcard {
  Params: { readonly "*": string };
}

interface NamedReference {
  readonly reference: ImageReference;
  readonly text: string;
}

/** The forms of a reference, for errors. */
export const REFERENCE_FORMS =
  "registry/repository:tag, registry/repository@digest or a name of the default registry";

const PINNED = object({ ref: TEXT, pinned: FLAG });

const SCHEMAS = {
  get: {
    summary: "Returns one image with its graph.",
    params: REF_PARAMS,
    response: {
      "200": json("The image.", shared("ImageDetail")),
      ...BAD_REF,
      ...DENIED,
      ...MISSING,
    },
  },
  remove: {
    summary:
      "Removes an image: a mirrored one from the cache; a hosted one permanently, with the manifests that only it needs.",
    params: REF_PARAMS,
    response: {
      "200": json("Removed.", object({ ref: TEXT, freedBytes: BYTES })),
      ...BAD_REF,
      ...DENIED,
      ...MISSING,
      "409": problem("A tag of the image is immutable."),
    },
  },
  pin: {
    summary:
      "Pins an image, so that it is not evicted or, if it is hosted, not deleted by retention.",
    params: REF_PARAMS,
    response: {
      "200": json("Pinned.", PINNED),
      ...BAD_REF,
      ...DENIED,
      ...MISSING,
    },
  },
  unpin: {
    summary: "Removes the pin of an image.",
    params: REF_PARAMS,
    response: {
      "200": json("Not pinned.", PINNED),
      ...BAD_REF,
      ...DENIED,
      ...MISSING,
    },
  },
  refresh: {
    summary:
      "Revalidates an image: the tag, its referrers and the list of tags.",
    params: REF_PARAMS,
    response: {
      "200": json(
        "Revalidated.",
        object({ ref: TEXT, digest: TEXT, changed: FLAG }),
      ),
      ...BAD_REF,
      ...DENIED,
      "404": problem("Neither cached nor known to the upstream."),
      "502": problem("The upstream failed; also 429, 503 and 504."),
    },
  },
} satisfies Readonly<Record<string, OperationSchema>>;

/**
 * Inspects, removes, pins and refreshes one image, `/api/v1/images/<ref>`. `<ref>` is
 * `registry/repository:tag` or `registry/repository@digest`; without a registry it is the default's,
 * without a tag `latest`. Responses name it in full.
 */
export async function imageApi(
  app: FastifyInstance,
  source: ImagesSource,
): Promise<void> {
  const { images } = source;
  const setPinned = async (
    request: FastifyRequest<Wildcard>,
    pinned: boolean,
  ) => {
    const { params } = request;
    const image = await readReference(images, params, "/pin");
    const isCached = await auditedImages(source, request).setPinned(
      image.reference,
      pinned,
    );
    if (!isCached) throw notCached();
    return { ref: image.text, pinned };
  };

  const url = "/api/v1/images/*";
  app.get<Wildcard>(url, { schema: SCHEMAS.get }, async ({ params }) => {
    const image = await readReference(images, params);
    return (await images.get(image.reference)) ?? Promise.reject(notCached());
  });
  app.delete<Wildcard>(
    url,
    { schema: SCHEMAS.remove },
    async ({ params, socket, headers, method }) => {
      const image = await readReference(images, params);
      const freedBytes = await auditedImages(source, {
        socket,
        headers,
        method,
      }).remove(image.reference);
      if (freedBytes === undefined) throw notCached();
      return { ref: image.text, freedBytes };
    },
  );
  const pin = { constraints: { action: "pin" } };
  app.put<Wildcard>(url, { schema: SCHEMAS.pin, ...pin }, (request) =>
    setPinned(request, true),
  );
  app.delete<Wildcard>(url, { schema: SCHEMAS.unpin, ...pin }, (request) =>
    setPinned(request, false),
  );
  app.post<Wildcard>(
    url,
    { schema: SCHEMAS.refresh, constraints: { action: "refresh" } },
    async ({ params }) => {
      const image = await readReference(images, params, "/refresh");
      await refuseHosted(source, image);
      const { digest, changed } = await source.refresh(image.reference);
      return { ref: image.text, digest, changed };
    },
  );
  app.route<Wildcard>({
    method: ["PUT", "POST"],
    url,
    handler: ({ method }) => {
      throw new RegistryError("NAME_INVALID", {
        detail: `got ${method} of a reference; expected PUT of …/pin or POST of …/refresh`,
      });
    },
  });
}

/** @throws RegistryError NAME_INVALID */
async function readReference(
  images: ImagesSource["images"],
  { "*": path }: Wildcard["Params"],
  suffix: "" | "/pin" | "/refresh" = "",
): Promise<NamedReference> {
  const text = path.slice(0, path.length - suffix.length);
  const reference = path.endsWith(suffix)
    ? await images.resolve(text)
    : undefined;
  if (reference === undefined) {
    throw new RegistryError("NAME_INVALID", {
      detail: `got a text that is not a reference; expected ${REFERENCE_FORMS}`,
    });
  }
  return { reference, text: imageText(reference) };
}

/** @throws RegistryError UNSUPPORTED */
async function refuseHosted(
  { hosted }: ImagesSource,
  image: NamedReference,
): Promise<void> {
  if (!(await hosted.isHosted(image.reference.key.upstream))) return;
  throw new RegistryError("UNSUPPORTED", {
    status: 400,
    detail: `${image.text} is hosted here and has no upstream; expected a mirrored image`,
  });
}

function notCached(): RegistryError {
  return new RegistryError("MANIFEST_UNKNOWN", {
    detail: "not cached as an image by itself",
  });
}
