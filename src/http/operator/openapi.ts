import type { RouteOptions } from "fastify";
import { VERSION } from "../../telemetry/version.ts";
import { type Json, SHARED_SCHEMAS } from "./api-schemas.ts";

/** The schema of one route: fastify checks requests by it, and the document is generated from it. */
export interface OperationSchema {
  readonly summary: string;
  readonly params?: Json;
  readonly querystring?: Json;
  readonly body?: Json;
  /** By status. */
  readonly response: Readonly<Record<string, Json>>;
}

/** A route, with the members of fastify's `onRoute` that the document needs. */
export type Route = Pick<
  RouteOptions,
  "method" | "url" | "schema" | "constraints"
>;

/**
 * Generates the OpenAPI document of the operator API from the schemas of its routes. Routes without
 * a summary are left out.
 *
 * The wildcard of `/api/v1/images/*` and the constraint `action` are written as
 * `/api/v1/images/{ref}/pin`: fastify's own plugin has no words for a parameter with slashes in it.
 * `/api/v1/jobs/:id` is written as `/api/v1/jobs/{id}`.
 *
 * @see https://spec.openapis.org/oas/v3.1.0
 */
export function describeRoutes(routes: readonly Route[]): Json {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const { method, url, schema, constraints } of routes) {
    const operation = schema as OperationSchema | undefined;
    if (operation?.summary === undefined || method === "HEAD") continue;
    const action: unknown = constraints?.["action"];
    const suffix = typeof action === "string" ? `/${action}` : "";
    const path = url.replace("*", "{ref}").replace(/:(\w+)/g, "{$1}") + suffix;
    const item = (paths[path] ??= {});
    item[String(method).toLowerCase()] = describeOperation(operation);
  }
  return {
    openapi: "3.1.0",
    info: { title: "Entrepot operator API", version: VERSION },
    paths,
    components: { schemas: withPublicRefs(SHARED_SCHEMAS) },
  };
}

function describeOperation(operation: OperationSchema): Json {
  const { summary, params, querystring, body, response } = operation;
  const parameters = [
    ...describeParameters("path", params),
    ...describeParameters("query", querystring),
  ];
  return {
    summary,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: body["type"] === "object",
            content: { "application/json": { schema: body } },
          },
        }),
    responses: withPublicRefs(response),
  };
}

function describeParameters(place: "path" | "query", schemas?: Json): Json[] {
  const properties = (schemas?.["properties"] ?? {}) as Readonly<
    Record<string, Json>
  >;
  return Object.entries(properties).map(
    ([name, { description, ...schema }]) => ({
      name: name === "*" ? "ref" : name,
      in: place,
      ...(place === "path" ? { required: true } : {}),
      description,
      schema,
    }),
  );
}

/** Fastify finds a shared schema as `Image#`, a reader of the document under `components`. */
function withPublicRefs(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withPublicRefs);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      key,
      key === "$ref" && typeof member === "string"
        ? `#/components/schemas/${member.replace("#", "")}`
        : withPublicRefs(member),
    ]),
  );
}
