import type { FastifyReply, FastifyRequest, FastifyError } from "fastify";
import { Refusal } from "../../mirror/answers.ts";
import { RegistryError, type RegistryErrorCode } from "../../oci/errors.ts";

/** The headers of every response of the operator listener. */
export const RESPONSE_HEADERS = {
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-store",
};

/**
 * Sends an error of the operator API as problem details:
 *
 * ```json
 * {"type": "urn:entrepot:problem:manifest-unknown", "title": "manifest unknown to registry",
 *  "status": 404, "detail": "not cached as an image by itself",
 *  "errors": [{"code": "MANIFEST_UNKNOWN", "message": "…", "detail": "…"}]}
 * ```
 *
 * `errors` is an extension member with the form of the registry API's errors, for the clients that
 * read it before there was a `type`.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9457
 */
export function sendProblem(
  reply: FastifyReply,
  error: RegistryError,
): FastifyReply {
  return reply
    .code(error.status)
    .type("application/problem+json")
    .send(problemText(error));
}

/** Formats an error as {@link sendProblem} sends it. */
export function problemText(error: RegistryError): string {
  const { code, message: title, status, detail } = error;
  return JSON.stringify({
    type: `urn:entrepot:problem:${code.toLowerCase().replaceAll("_", "-")}`,
    title,
    status,
    detail,
    errors: [{ code, message: title, detail }],
  });
}

/** The error handler of the operator API. */
export function handleProblem(
  error: FastifyError,
  _request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  return sendProblem(reply, toRegistryError(error));
}

/** The handler for paths and methods that the operator API does not have. */
export function handleUnknownRoute(
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  return sendProblem(
    reply,
    new RegistryError("UNSUPPORTED", {
      status: 404,
      detail: `got ${request.method} of an unknown path; see /api/v1/openapi.json`,
    }),
  );
}

/** The handler for paths that the router can't decode; the hooks of routes do not run for them. */
export function handleBadPath(
  { statusCode: status = 400 }: FastifyError,
  _request: FastifyRequest,
  reply: FastifyReply,
): void {
  reply.headers(RESPONSE_HEADERS);
  void sendProblem(
    reply,
    new RegistryError("UNSUPPORTED", {
      status,
      detail: "got a path with an invalid escape; expected %25 for each %",
    }),
  );
}

/** Maps any error of a handler to the one that its client gets. */
export function toRegistryError(
  error: Partial<FastifyError> | RegistryError | Refusal,
): RegistryError {
  if (error instanceof Refusal) return error.error;
  if (error instanceof RegistryError) return error;
  const { statusCode: status = 500, validation, validationContext } = error;
  if (validation !== undefined) {
    const [fault] = validation;
    const [, name] = fault?.instancePath.split("/") ?? [];
    const unknown: unknown = fault?.params["additionalProperty"];
    return new RegistryError(codeOf(validationContext, name), {
      status: 400,
      detail:
        typeof unknown === "string"
          ? `${[name, unknown].filter((part) => part !== undefined).join(".")}: got an unknown member; see /api/v1/openapi.json`
          : `${name ?? validationContext}: ${fault?.message ?? "not valid"}; see /api/v1/openapi.json`,
    });
  }
  // Fastify's own: a body that is too long, not JSON, or of another media type.
  return status < 500
    ? new RegistryError("UNSUPPORTED", {
        status,
        detail: "got a request that this API does not read; expected JSON",
      })
    : new RegistryError("UNAVAILABLE", {
        status: 503,
        detail: "index or storage does not respond",
        cause: error,
      });
}

function codeOf(
  context: string | undefined,
  name: string | undefined,
): RegistryErrorCode {
  if (context === "body") return "UNSUPPORTED";
  return name === "n" ? "PAGINATION_NUMBER_INVALID" : "NAME_INVALID";
}
