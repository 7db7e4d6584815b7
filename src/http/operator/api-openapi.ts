import { VERSION } from "../../telemetry/version.ts";

type Json = Readonly<Record<string, unknown>>;

const REF = {
  name: "ref",
  in: "path",
  required: true,
  description:
    "upstream/repository:tag or upstream/repository@digest; its slashes stand as they are.",
  schema: { type: "string" },
};

function object(
  properties: Readonly<Record<string, Json>>,
  required: readonly string[] = Object.keys(properties),
): Json {
  return { type: "object", properties, required };
}

function answer(description: string, schema: Json): Json {
  return {
    description,
    content: { "application/json": { schema } },
  };
}

function refusal(description: string): Json {
  return answer(description, { $ref: "#/components/schemas/Errors" });
}

const TEXT = { type: "string" };
const FLAG = { type: "boolean" };
const BYTES = { type: "integer", minimum: 0 };
const TIME = { type: "string", format: "date-time" };
const COUNT = { type: "integer", minimum: 0 };
const LAST_ERROR = {
  anyOf: [object({ at: TIME, kind: TEXT, message: TEXT }), { type: "null" }],
};
const MISSING = { "404": refusal("Not cached as an image of its own.") };
const BAD_REF = { "400": refusal("No reference.") };
const DENIED = { "403": refusal("Not a peer on this machine.") };

const IMAGE = {
  ref: TEXT,
  digest: TEXT,
  mediaType: TEXT,
  sizeBytes: BYTES,
  complete: FLAG,
  pinned: FLAG,
  pulledAt: TIME,
  platforms: {
    type: "array",
    items: object({ platform: TEXT, digest: TEXT, complete: FLAG }),
  },
};

/**
 * The operator API as an OpenAPI document; of what exists, nothing else.
 *
 * @see https://spec.openapis.org/oas/v3.1.0
 */
export const OPENAPI = {
  openapi: "3.1.0",
  info: { title: "Entrepot operator API", version: VERSION },
  paths: {
    "/api/v1/status": {
      get: {
        summary: "What the mirror is and holds.",
        responses: {
          "200": answer("The mirror.", {
            $ref: "#/components/schemas/Status",
          }),
          ...DENIED,
        },
      },
    },
    "/api/v1/upstreams": {
      get: {
        summary:
          "Registries: endpoints and breakers, accounts and budgets, last errors.",
        responses: {
          "200": answer("In the configuration's order.", {
            $ref: "#/components/schemas/Upstreams",
          }),
          ...DENIED,
        },
      },
    },
    "/api/v1/openapi.json": {
      get: {
        summary: "This document.",
        responses: {
          "200": answer("OpenAPI 3.1.", { type: "object" }),
          ...DENIED,
        },
      },
    },
    "/api/v1/images": {
      get: {
        summary: "Images in the cache, by name.",
        parameters: [
          {
            name: "q",
            in: "query",
            description:
              "A glob over upstream/repository[:tag]; a text without * is looked for anywhere in the reference.",
            schema: TEXT,
          },
          {
            name: "n",
            in: "query",
            schema: {
              type: "integer",
              minimum: 1,
              maximum: 1000,
              default: 100,
            },
          },
          {
            name: "last",
            in: "query",
            description: "The last of the page before.",
            schema: TEXT,
          },
        ],
        responses: {
          "200": answer(
            "A page of images.",
            object({
              images: {
                type: "array",
                items: { $ref: "#/components/schemas/Image" },
              },
              last: { type: ["string", "null"] },
            }),
          ),
          "400": refusal("n or last is not valid."),
          ...DENIED,
        },
      },
    },
    "/api/v1/images/{ref}": {
      parameters: [REF],
      get: {
        summary: "One image with its graph.",
        responses: {
          "200": answer("The image.", {
            $ref: "#/components/schemas/ImageDetail",
          }),
          ...BAD_REF,
          ...DENIED,
          ...MISSING,
        },
      },
      delete: {
        summary: "Drops an image from the cache.",
        responses: {
          "200": answer("Dropped.", object({ ref: TEXT, freedBytes: BYTES })),
          ...BAD_REF,
          ...DENIED,
          ...MISSING,
        },
      },
    },
    "/api/v1/images/{ref}/pin": {
      parameters: [REF],
      put: {
        summary: "Never evicts an image.",
        responses: {
          "200": answer("Pinned.", object({ ref: TEXT, pinned: FLAG })),
          ...BAD_REF,
          ...DENIED,
          ...MISSING,
        },
      },
      delete: {
        summary: "Lets an image be evicted again.",
        responses: {
          "200": answer("Not pinned.", object({ ref: TEXT, pinned: FLAG })),
          ...BAD_REF,
          ...DENIED,
          ...MISSING,
        },
      },
    },
    "/api/v1/images/{ref}/refresh": {
      parameters: [REF],
      post: {
        summary:
          "Asks the upstream again: what a tag points to, referrers, the list of tags.",
        responses: {
          "200": answer(
            "Asked.",
            object({ ref: TEXT, digest: TEXT, changed: FLAG }),
          ),
          ...BAD_REF,
          ...DENIED,
          "404": refusal("Neither cached nor upstream."),
          "502": refusal("The upstream failed; also 429, 503 and 504."),
        },
      },
    },
    "/api/v1/scrub": {
      post: {
        summary:
          "Compares every blob with its digest and the index with them; answers when it is done.",
        requestBody: {
          required: false,
          content: {
            "application/json": {
              schema: {
                ...object({ repair: FLAG }, []),
                additionalProperties: false,
              },
            },
          },
        },
        responses: {
          "200": answer(
            "What is wrong.",
            object({
              blobs: { type: "integer", minimum: 0 },
              bytes: BYTES,
              findings: {
                type: "array",
                items: object({
                  code: TEXT,
                  path: TEXT,
                  digest: { type: ["string", "null"] },
                  repaired: FLAG,
                }),
              },
            }),
          ),
          "400": refusal("Another body."),
          ...DENIED,
          "503": refusal("A scrub runs, or index or storage do not answer."),
        },
      },
    },
    "/api/v1/evict": {
      post: {
        summary: "Makes room now, or says what would go.",
        requestBody: {
          required: false,
          content: {
            "application/json": {
              schema: {
                ...object({ toBytes: BYTES, dryRun: FLAG }, []),
                additionalProperties: false,
              },
            },
          },
        },
        responses: {
          "200": answer(
            "What went, or would go.",
            object({
              dryRun: FLAG,
              images: {
                type: "array",
                items: object({
                  ref: TEXT,
                  digest: TEXT,
                  sizeBytes: BYTES,
                  pulledAt: TIME,
                  reason: {
                    type: "string",
                    enum: ["size", "free", "idle", "operator", "index"],
                  },
                }),
              },
              freedBytes: BYTES,
            }),
          ),
          "400": refusal("Another body."),
          ...DENIED,
        },
      },
    },
  },
  components: {
    schemas: {
      Image: object(IMAGE),
      ImageDetail: object({
        ...IMAGE,
        graph: {
          type: "array",
          items: object({
            digest: TEXT,
            kind: { type: "string", enum: ["manifest", "config", "blob"] },
            mediaType: { type: ["string", "null"] },
            sizeBytes: { type: ["integer", "null"] },
            stored: FLAG,
            parent: { type: ["string", "null"] },
          }),
        },
      }),
      Upstreams: object({
        upstreams: {
          type: "array",
          items: object({
            name: TEXT,
            state: {
              type: "string",
              enum: ["up", "down", "unauthorized", "offline"],
            },
            tokensHeld: COUNT,
            endpoints: {
              type: "array",
              items: object({
                url: TEXT,
                breaker: {
                  type: "string",
                  enum: ["closed", "open", "half-open"],
                },
                retryAfterSeconds: COUNT,
                lastError: LAST_ERROR,
              }),
            },
            credentials: {
              type: "array",
              items: object({
                name: TEXT,
                endpoint: TEXT,
                limit: { type: ["integer", "null"] },
                remaining: { type: ["integer", "null"] },
                source: { type: ["string", "null"] },
                resetsAt: { type: ["string", "null"], format: "date-time" },
                restsForSeconds: COUNT,
                isRefused: FLAG,
              }),
            },
            lastError: LAST_ERROR,
          }),
        },
      }),
      Status: object({
        version: TEXT,
        startedAt: TIME,
        offline: FLAG,
        upstreams: { type: "array", items: TEXT },
        storage: object({
          root: TEXT,
          bytes: BYTES,
          limitBytes: { type: ["integer", "null"] },
          blobs: BYTES,
          manifests: BYTES,
          tags: BYTES,
        }),
      }),
      Errors: object({
        errors: {
          type: "array",
          items: object({ code: TEXT, message: TEXT, detail: TEXT }, [
            "code",
            "message",
          ]),
        },
      }),
    },
  },
} as const;
