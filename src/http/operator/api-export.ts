import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { BundleBase, ExportRequest } from "../../images/bundles/bundle.ts";
import type { TrackedExports } from "../../images/bundles/export/tracked-exports.ts";
import { LIST_FORMATS, type ListText } from "../../images/lists/list-entry.ts";
import { type Digest, parseDigest } from "../../oci/digest.ts";
import { RegistryError } from "../../oci/errors.ts";
import { PLATFORM_PATTERN } from "../../oci/platform.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import {
  DENIED,
  FLAG,
  type Json,
  list,
  object,
  problem,
  TEXT,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** The parts of the program that exports call. */
export interface ExportSource {
  readonly exports: Pick<TrackedExports, "start">;
}

/** The digests of an earlier bundle with 200 000 blobs. */
const MAX_BODY_BYTES = 32 * 1024 * 1024;
/** Of the response: the job and the size of the bundle, as JSON. */
export const EXPORT_HEADER = "entrepot-export";

/** The value of {@link EXPORT_HEADER}. */
export interface ExportSummary {
  readonly job: string;
  readonly images: number;
  readonly blobs: number;
  readonly bytes: number;
  readonly omittedBlobs: number;
  readonly omittedBytes: number;
  readonly indexDigest: string;
}

interface ExportQuery {
  readonly ref: string | readonly string[];
  readonly platform?: string | readonly string[];
  readonly withReferrers?: boolean;
}

/** The body of `POST /api/v1/export`. */
export interface ExportBody {
  readonly refs?: readonly string[];
  readonly lists?: readonly ListText[];
  readonly platforms?: readonly string[];
  readonly withReferrers?: boolean;
  readonly since?: {
    readonly indexDigest: string;
    readonly manifests: readonly {
      readonly digest: string;
      readonly registry?: string;
      readonly content?: {
        readonly blobs: readonly string[];
        readonly subject?: string;
      };
    }[];
  };
}

const ONE_OR_MORE = { anyOf: [TEXT, list(TEXT)] };
const PLATFORM = { ...TEXT, pattern: PLATFORM_PATTERN };
const PLATFORM_TEXT =
  "As linux/arm64 or linux/arm64/v8; without any, every platform that is completely stored.";

const RESPONSE = {
  "200": {
    description:
      "The bundle. The header entrepot-export has its size as JSON. A bundle whose content turns out to be damaged ends before the end of the archive.",
    content: {
      "application/x-tar": { schema: { type: "string", format: "binary" } },
    },
  } satisfies Json,
  "400": problem("The request is not valid."),
  ...DENIED,
  "404": problem(
    "An image is not stored, or not completely; the detail names each.",
  ),
  "429": problem("Too many exports run."),
};

/** Of the earlier bundle, with its own bases. */
const BASE_MANIFEST = object(
  {
    digest: TEXT,
    registry: {
      ...TEXT,
      description: "Of its image; absent: that of its subject.",
    },
    content: {
      ...object({ blobs: list(TEXT), subject: TEXT }, ["blobs"]),
      description:
        "What it names; absent: it is read from the storage, if it is there.",
    },
  },
  ["digest"],
);

const SCHEMAS = {
  get: {
    summary:
      "Exports images as an OCI image layout in a tar archive. An index keeps its bytes; the manifests of its other platforms are left out.",
    querystring: {
      type: "object",
      properties: {
        ref: {
          ...ONE_OR_MORE,
          description:
            "A reference, or a glob over registry/repository[:tag]; repeatable.",
        },
        platform: {
          anyOf: [PLATFORM, list(PLATFORM)],
          description: `${PLATFORM_TEXT} Repeatable.`,
        },
        withReferrers: {
          ...FLAG,
          description: "Also exports signatures and other referrers.",
        },
      },
      required: ["ref"],
    },
    response: RESPONSE,
  },
  post: {
    summary:
      "Exports images as GET does; also those of lists, and without the blobs of an earlier bundle.",
    body: {
      type: "object",
      properties: {
        refs: list(TEXT),
        lists: list(
          object(
            {
              name: TEXT,
              text: TEXT,
              format: { type: "string", enum: LIST_FORMATS },
            },
            ["name", "text"],
          ),
        ),
        platforms: list(PLATFORM),
        withReferrers: FLAG,
        since: object({
          indexDigest: TEXT,
          manifests: list(BASE_MANIFEST),
        }),
      },
      additionalProperties: false,
    },
    response: RESPONSE,
  },
} satisfies Readonly<Record<string, OperationSchema>>;

/** Exports stored images as a bundle, `GET` and `POST /api/v1/export`. */
export async function exportApi(
  app: FastifyInstance,
  { exports }: ExportSource,
): Promise<void> {
  const send = async (
    request: FastifyRequest,
    reply: FastifyReply,
    wanted: ExportRequest,
  ): Promise<FastifyReply> => {
    const left = new AbortController();
    const { raw } = reply;
    raw.once("close", () => {
      if (!raw.writableFinished) left.abort(new Error("the client left"));
    });
    const { archive, report, job } = await exports.start(
      wanted,
      canonicalAddress(request.socket.remoteAddress),
      left.signal,
    );
    const summary: ExportSummary = {
      ...report,
      job,
      images: report.images.length,
    };
    return reply
      .type("application/x-tar")
      .header(EXPORT_HEADER, JSON.stringify(summary))
      .send(archive);
  };
  const url = "/api/v1/export";
  // A HEAD would read the whole bundle.
  app.get<{ Querystring: ExportQuery }>(
    url,
    { schema: SCHEMAS.get, exposeHeadRoute: false },
    (request, reply) => {
      const { ref, platform = [], withReferrers = false } = request.query;
      return send(request, reply, {
        refs: [ref].flat(),
        lists: [],
        platforms: [platform].flat(),
        withReferrers,
        since: undefined,
      });
    },
  );
  app.post<{ Body: ExportBody }>(
    url,
    { schema: SCHEMAS.post, bodyLimit: MAX_BODY_BYTES },
    (request, reply) => {
      const { body } = request;
      return send(request, reply, {
        refs: body.refs ?? [],
        lists: body.lists ?? [],
        platforms: body.platforms ?? [],
        withReferrers: body.withReferrers ?? false,
        since: readBase(body.since),
      });
    },
  );
}

/** @throws RegistryError DIGEST_INVALID */
function readBase(since: ExportBody["since"]): BundleBase | undefined {
  if (since === undefined) return undefined;
  const { indexDigest, manifests } = since;
  return {
    indexDigest: readDigest(indexDigest),
    manifests: manifests.map(({ digest, registry, content }) => ({
      digest: readDigest(digest),
      registry,
      content: content && {
        blobs: content.blobs.map(readDigest),
        subject:
          content.subject === undefined
            ? undefined
            : readDigest(content.subject),
      },
    })),
  };
}

function readDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest !== undefined) return digest;
  throw new RegistryError("DIGEST_INVALID", {
    status: 400,
    detail: `got ${text.slice(0, 140)}; expected a digest`,
  });
}
