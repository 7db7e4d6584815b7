import { JOB_KINDS, JOB_STATES } from "../../images/jobs/job.ts";

/** A JSON schema, as fastify compiles it and as the OpenAPI document shows it. */
export type Json = Readonly<Record<string, unknown>>;

export const TEXT = { type: "string" };
export const FLAG = { type: "boolean" };
export const BYTES = { type: "integer", minimum: 0 };
export const COUNT = { type: "integer", minimum: 0 };
export const TIME = { type: "string", format: "date-time" };
export const TEXT_OR_NULL = { type: ["string", "null"] };

const DEFAULT_PAGE = 100;
/** Items on a page; a request for more gets this many. */
export const MAX_PAGE = 1_000;

/**
 * Describes the query of a list in pages.
 *
 * @param items the items, as in `Images`
 * @param key the member that `last` repeats, as in `reference`
 */
export function pageQuery(items: string, key: string) {
  return {
    n: {
      type: "integer",
      minimum: 1,
      default: DEFAULT_PAGE,
      description: `${items} on a page; more than ${MAX_PAGE} counts as ${MAX_PAGE}.`,
    },
    last: { ...TEXT, description: `The last ${key} of the previous page.` },
  };
}
export const TIME_OR_NULL = {
  type: ["string", "null"],
  format: "date-time",
};
export const INTEGER_OR_NULL = { type: ["integer", "null"] };

/** An object whose members are all required, unless `required` names fewer. */
export function object(
  properties: Readonly<Record<string, Json>>,
  required: readonly string[] = Object.keys(properties),
): Json {
  return { type: "object", properties, required };
}

export function list(items: Json): Json {
  return { type: "array", items };
}

/** An optional request body: an object of these optional members, or no body. */
export function optionalBody(properties: Readonly<Record<string, Json>>): Json {
  return {
    type: ["object", "null"],
    properties,
    additionalProperties: false,
  };
}

/** One JSON response of a route. */
export function json(description: string, schema: Json): Json {
  return { description, content: { "application/json": { schema } } };
}

/** A response with problem details; see `problem.ts`. */
export function problem(description: string): Json {
  return {
    description,
    content: { "application/problem+json": { schema: shared("Problem") } },
  };
}

/** Refers to a member of `SHARED_SCHEMAS`. */
export function shared(name: keyof typeof SHARED_SCHEMAS): Json {
  return { $ref: `${name}#` };
}

/** The parameters of `/api/v1/images/*`. */
export const REF_PARAMS = {
  type: "object",
  properties: {
    "*": {
      ...TEXT,
      description:
        "registry/repository:tag or registry/repository@digest, or a name of the default registry; its slashes are not escaped.",
    },
  },
};

export const BAD_REF = { "400": problem("The reference is not valid.") };
export const DENIED = {
  "401": problem("The bearer token is missing or wrong."),
  "403": problem("The client or the origin of the request is not allowed."),
};
export const MISSING = { "404": problem("Not cached as an image by itself.") };

const LAST_ERROR = {
  anyOf: [object({ at: TIME, kind: TEXT, message: TEXT }), { type: "null" }],
};

const IMAGE = {
  ref: TEXT,
  digest: TEXT,
  mediaType: TEXT,
  sizeBytes: BYTES,
  complete: FLAG,
  pinned: FLAG,
  hosted: FLAG,
  pulledAt: TIME,
  platforms: list(object({ platform: TEXT, digest: TEXT, complete: FLAG })),
};

const PART = {
  digest: TEXT,
  kind: { type: "string", enum: ["manifest", "config", "blob"] },
  mediaType: TEXT_OR_NULL,
  sizeBytes: INTEGER_OR_NULL,
  stored: FLAG,
  parent: TEXT_OR_NULL,
};

const REFERRER = {
  digest: TEXT,
  mediaType: TEXT,
  artifactType: TEXT_OR_NULL,
  sizeBytes: BYTES,
};

const HOSTED_REGISTRY = {
  name: TEXT,
  default: FLAG,
  repositories: COUNT,
  tags: COUNT,
  bytes: BYTES,
  quotaBytes: INTEGER_OR_NULL,
  uploads: COUNT,
  uploadBytes: BYTES,
};

const UPSTREAM = {
  name: TEXT,
  state: { type: "string", enum: ["up", "down", "unauthorized", "offline"] },
  tokensHeld: COUNT,
  endpoints: list(
    object({
      url: TEXT,
      breaker: { type: "string", enum: ["closed", "open", "half-open"] },
      retryAfterSeconds: COUNT,
      lastError: LAST_ERROR,
    }),
  ),
  credentials: list(
    object({
      name: TEXT,
      endpoint: TEXT,
      limit: INTEGER_OR_NULL,
      remaining: INTEGER_OR_NULL,
      source: TEXT_OR_NULL,
      resetsAt: { type: ["string", "null"], format: "date-time" },
      restsForSeconds: COUNT,
      isRefused: FLAG,
    }),
  ),
  lastError: LAST_ERROR,
};

const JOB = {
  id: TEXT,
  kind: { type: "string", enum: JOB_KINDS },
  state: { type: "string", enum: JOB_STATES },
  done: COUNT,
  total: COUNT,
  bytes: BYTES,
  bytesTotal: BYTES,
  running: list(object({ ref: TEXT, bytes: BYTES, bytesTotal: BYTES })),
  errors: list(object({ ref: TEXT, message: TEXT })),
  errorCount: COUNT,
  notes: {
    ...list(object({ ref: TEXT, message: TEXT })),
    description:
      "What the lists say and the server does not apply, such as credentials.",
  },
  startedAt: TIME_OR_NULL,
  endedAt: TIME_OR_NULL,
  waitsUntil: TIME_OR_NULL,
};

const STATUS = {
  version: TEXT,
  startedAt: TIME,
  offline: FLAG,
  upstreams: list(TEXT),
  hosted: list(object(HOSTED_REGISTRY)),
  health: object({
    ready: FLAG,
    detail: { type: "object", additionalProperties: TEXT },
  }),
  cache: object({
    requests: COUNT,
    hits: COUNT,
    hitRatio: { type: ["number", "null"], minimum: 0, maximum: 1 },
    servedBytes: BYTES,
    receivedBytes: BYTES,
    savedBytes: BYTES,
  }),
  storage: object({
    root: TEXT,
    bytes: BYTES,
    limitBytes: INTEGER_OR_NULL,
    freeBytes: INTEGER_OR_NULL,
    blobs: COUNT,
    manifests: COUNT,
    tags: COUNT,
    evictedImages: COUNT,
    oldestEvictedAgeSeconds: { type: ["number", "null"], minimum: 0 },
  }),
  running: object({
    fillCount: COUNT,
    fills: list(
      object({
        ref: TEXT,
        bytes: BYTES,
        bytesTotal: INTEGER_OR_NULL,
        clients: COUNT,
      }),
    ),
    jobs: list({ $ref: "Job#" }),
  }),
};

const PROBLEM = {
  type: { type: "string", format: "uri" },
  title: TEXT,
  status: { type: "integer", minimum: 400, maximum: 599 },
  detail: TEXT,
  errors: list(
    object({ code: TEXT, message: TEXT, detail: TEXT }, ["code", "message"]),
  ),
};

/** Schemas that the document shows once, under `components`. */
export const SHARED_SCHEMAS = {
  Image: object(IMAGE),
  ImageDetail: object({
    ...IMAGE,
    graph: list(object(PART)),
    referrers: list(object(REFERRER)),
  }),
  Upstreams: object({ upstreams: list(object(UPSTREAM)) }),
  Job: object(JOB),
  Status: object(STATUS),
  Problem: object(PROBLEM, ["type", "title", "status", "errors"]),
} as const;
