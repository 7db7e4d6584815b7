import type { IncomingMessage, ServerResponse } from "node:http";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { ImportReport } from "../../images/bundles/bundle.ts";
import type { TrackedImports } from "../../images/bundles/import/tracked-imports.ts";
import { canonicalAddress } from "../client-auth/networks.ts";
import { endAfterBody } from "../registry/unread-body.ts";
import {
  BYTES,
  COUNT,
  DENIED,
  FLAG,
  json,
  list,
  object,
  problem,
  TEXT,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";
import { problemText, RESPONSE_HEADERS, toRegistryError } from "./problem.ts";

/** The parts of the program that imports call. */
export interface ImportSource {
  readonly imports: Pick<TrackedImports, "run">;
}

interface ImportQuery {
  readonly into?: string;
  readonly name?: string;
  readonly pin?: boolean;
}

/** A client that sends nothing for this long is cut off; the mirror may wait for its disk meanwhile. */
const IDLE_TIMEOUT_MS = 10 * 60_000;

const SCHEMA = {
  summary:
    "Imports the images of an OCI image layout: a tar archive, also with gzip or zstd around it. Responds when every blob was verified and every image recorded.",
  querystring: {
    type: "object",
    properties: {
      into: {
        ...TEXT,
        description:
          "A hosted registry and a path, as in local/team: the images are stored there, without the name of their registry.",
      },
      name: {
        ...TEXT,
        description:
          "The name of the only image, or the repository of images that have a tag and no name.",
      },
      pin: { ...FLAG, description: "Pins every image." },
    },
  },
  response: {
    "200": json(
      "Imported. `blobs` and `bytes` were not stored before.",
      object({
        images: list(
          object({ ref: TEXT, digest: TEXT, absentManifests: COUNT }),
        ),
        blobs: COUNT,
        bytes: BYTES,
      }),
    ),
    "400": problem(
      "The bundle is refused, and nothing of it stays: the detail names the damaged member or the missing part.",
    ),
    "401": DENIED["401"],
    "403": problem(
      "The quota of a hosted registry is used up; or the client or the origin of the request is not allowed.",
    ),
    "409": problem("A tag is immutable."),
    "429": problem("Too many imports run."),
    "503": problem("Index or storage does not respond, or the server stops."),
    "507": problem("There is no room; the detail has how much is missing."),
  },
} satisfies OperationSchema;

/** `POST /api/v1/import`, whose body is the archive. */
export async function importApi(
  app: FastifyInstance,
  { imports }: ImportSource,
): Promise<void> {
  // Whatever its type: the body is recognised by its first bytes, and never held in memory.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, _body, done) => done(null));
  app.post<{ Querystring: ImportQuery }>(
    "/api/v1/import",
    { schema: SCHEMA, bodyLimit: Number.MAX_SAFE_INTEGER },
    async (request, reply) => {
      const { into, name, pin: isPinned = false } = request.query;
      const left = new AbortController();
      const { raw } = request;
      const leave = (): void => left.abort(new Error("the client left"));
      reply.raw.once("close", () => {
        if (!reply.raw.writableFinished) leave();
      });
      // The parser's error waits for the response, which waits for the rest of the body.
      const onEnd = (): void => {
        if (!raw.complete) raw.destroy();
      };
      raw.socket.once("end", onEnd);
      if (raw.socket.readableEnded) onEnd();
      raw.setTimeout(IDLE_TIMEOUT_MS, () => raw.destroy());
      if (raw.headers.expect !== undefined) reply.raw.writeContinue();
      try {
        return await imports.run(
          { bytes: readBody(raw, leave), sizeBytes: lengthOf(raw) },
          { into, name, isPinned },
          senderOf(request),
          left.signal,
        );
      } catch (error) {
        return refuse(error, request, reply);
      } finally {
        raw.socket.off("end", onEnd);
        raw.setTimeout(0);
      }
    },
  );
}

/** Reads the body; the connection stays open if the reader ends early. */
async function* readBody(
  raw: IncomingMessage,
  onLeft: () => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* raw.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  } catch (error) {
    onLeft();
    throw error;
  }
}

/** @returns undefined if the body is sent in chunks */
function lengthOf({ headers }: IncomingMessage): number | undefined {
  const { "content-length": length } = headers;
  return length === undefined ? undefined : Number(length);
}

function senderOf({ socket, headers, method }: FastifyRequest) {
  return {
    user: undefined,
    client: canonicalAddress(socket.remoteAddress),
    userAgent: headers["user-agent"],
    host: headers.host,
    method,
  };
}

/** Responds to a refused bundle, of which a part may not be read yet. */
function refuse(
  error: unknown,
  { raw }: FastifyRequest,
  reply: FastifyReply,
): ImportReport | FastifyReply {
  if (raw.readableEnded || raw.destroyed || !(error instanceof Error)) {
    throw error;
  }
  const refusal = toRegistryError(error);
  const bytes = Buffer.from(problemText(refusal));
  reply.hijack();
  const response: ServerResponse = reply.raw;
  response.writeHead(refusal.status, {
    ...RESPONSE_HEADERS,
    "Content-Type": "application/problem+json; charset=utf-8",
    "Content-Length": bytes.length,
    Connection: "close",
  });
  endAfterBody(raw, response, bytes);
  return reply;
}
