import { Ajv, type ValidateFunction } from "ajv";
import type { FastifyInstance } from "fastify";
import { limitBodyIdle } from "./body-idle.ts";
import { exportApi, type ExportSource } from "./api-export.ts";
import { gcApi } from "./api-gc.ts";
import { imageApi } from "./api-image.ts";
import { imagesApi } from "./api-images.ts";
import { importApi, type ImportSource } from "./api-import.ts";
import { DENIED, type Json, json, SHARED_SCHEMAS } from "./api-schemas.ts";
import { scrubApi, type ScrubSource } from "./api-scrub.ts";
import type { ImagesSource } from "./images-source.ts";
import { eventsApi } from "./api-events.ts";
import { jobsApi, type JobsSource } from "./api-jobs.ts";
import { statusApi, type StatusSource } from "./api-status.ts";
import { warmApi, type WarmSource } from "./api-warm.ts";
import { upstreamsApi, type UpstreamsSource } from "./api-upstreams.ts";
import { wishesApi, type WishesSource } from "./api-wishes.ts";
import { tagsApi } from "./api-tags.ts";
import { describeRoutes, type OperationSchema, type Route } from "./openapi.ts";
import { handleProblem } from "./problem.ts";

/** The parts of the program that the routes below `/api/v1` call. */
export interface OperatorApiSources
  extends
    ExportSource,
    ImagesSource,
    ImportSource,
    JobsSource,
    WarmSource,
    ScrubSource,
    StatusSource,
    UpstreamsSource,
    WishesSource {}

const OPENAPI_SCHEMA = {
  summary: "Returns this document.",
  response: {
    "200": json("OpenAPI 3.1.", { type: "object", additionalProperties: true }),
    ...DENIED,
  },
} satisfies OperationSchema;

/**
 * The routes below `/api/v1` and `/api/v1/openapi.json`, which is generated from their schemas.
 * Fastify checks requests by the schemas. Responses are written by V8: a test holds them to their
 * schemas, and compiled serializers would take 3 MB of an idle mirror.
 */
export async function operatorApi(
  app: FastifyInstance,
  sources: OperatorApiSources,
): Promise<void> {
  const routes: Route[] = [];
  let document: string | undefined;
  app.addHook("onRoute", (route) => void routes.push(route));
  app.setErrorHandler(handleProblem);
  limitBodyIdle(app);
  for (const [$id, schema] of Object.entries(SHARED_SCHEMAS)) {
    app.addSchema({ $id, ...schema });
  }
  app.setValidatorCompiler<Json>(({ schema, httpPart }) =>
    compileOnUse(schema, httpPart === "querystring"),
  );
  app.setSerializerCompiler(() => JSON.stringify);
  app.get(
    "/api/v1/openapi.json",
    { schema: OPENAPI_SCHEMA },
    (_request, reply) => {
      document ??= JSON.stringify(describeRoutes(routes));
      return reply.type("application/json; charset=utf-8").send(document);
    },
  );
  void app.register(upstreamsApi, sources);
  void app.register(statusApi, sources);
  void app.register(imagesApi, sources);
  void app.register(imageApi, sources);
  void app.register(scrubApi, sources);
  void app.register(tagsApi, sources);
  void app.register(gcApi, sources);
  void app.register(importApi, sources);
  void app.register(exportApi, sources);
  void app.register(jobsApi, sources);
  void app.register(eventsApi, sources);
  void app.register(warmApi, sources);
  void app.register(wishesApi, sources);
}

/**
 * Compiles a schema when the first request needs it: most mirrors get few requests of the operator
 * API, and Ajv takes memory.
 *
 * @param isText of a query, whose texts are converted to numbers; a number in a body is a JSON number
 */
function compileOnUse(schema: Json, isText: boolean): Validator {
  let compiled: ValidateFunction | undefined;
  const validate: Validator = (value) => {
    compiled ??= new Ajv({
      allowUnionTypes: true,
      useDefaults: true,
      coerceTypes: isText,
    }).compile(schema);
    const isValid = compiled(value);
    validate.errors = compiled.errors ?? null;
    return isValid;
  };
  return validate;
}

/** As fastify calls it: it reads `errors` after a `false`. */
interface Validator {
  (value: unknown): boolean;
  errors?: NonNullable<ValidateFunction["errors"]> | null;
}
