import type { FastifyInstance } from "fastify";
import { DENIED, json, shared } from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** The last failure of an endpoint. Its message contains no secret. */
interface LastError {
  readonly atMs: number;
  readonly kind: string;
  readonly message: string;
}

interface EndpointStatus {
  readonly url: string;
  readonly breaker: "closed" | "open" | "half-open";
  readonly retryAfterMs: number;
  readonly lastError: LastError | undefined;
}

interface CredentialStatus {
  readonly name: string;
  readonly endpoint: string;
  readonly budget:
    | {
        readonly limit: number | undefined;
        readonly remaining: number;
        readonly source: string | undefined;
        readonly resetsAtMs: number;
      }
    | undefined;
  readonly restsForMs: number;
  readonly isRefused: boolean;
}

interface UpstreamStatus {
  readonly name: string;
  readonly state: "up" | "down" | "unauthorized" | "offline";
  readonly endpoints: readonly EndpointStatus[];
  readonly credentials: readonly CredentialStatus[];
  readonly tokensHeld: number;
}

/** The part of the program that reports on upstreams. */
export interface UpstreamsSource {
  /** In the order of the configuration. */
  upstreams(): readonly UpstreamStatus[];
}

const SCHEMA = {
  summary:
    "Returns the upstreams: endpoints and breakers, credentials and budgets, last errors.",
  response: {
    "200": json("In the order of the configuration.", shared("Upstreams")),
    ...DENIED,
  },
} satisfies OperationSchema;

/**
 * `GET /api/v1/upstreams`. Unknown values are null. No secret is included: credentials appear by
 * name, tokens as a number.
 */
export async function upstreamsApi(
  app: FastifyInstance,
  source: UpstreamsSource,
): Promise<void> {
  app.get("/api/v1/upstreams", { schema: SCHEMA }, () => ({
    upstreams: source.upstreams().map(toJson),
  }));
}

function toJson(status: UpstreamStatus): Record<string, unknown> {
  const { name, state, endpoints, credentials, tokensHeld } = status;
  const errors = endpoints.flatMap(({ lastError }) => lastError ?? []);
  return {
    name,
    state,
    tokensHeld,
    endpoints: endpoints.map(({ url, breaker, retryAfterMs, lastError }) => ({
      url,
      breaker,
      retryAfterSeconds: seconds(retryAfterMs),
      lastError: errorJson(lastError),
    })),
    credentials: credentials.map((credential) => {
      const { budget, restsForMs } = credential;
      return {
        name: credential.name,
        endpoint: credential.endpoint,
        limit: budget?.limit ?? null,
        remaining: budget?.remaining ?? null,
        source: budget?.source ?? null,
        resetsAt: budget === undefined ? null : time(budget.resetsAtMs),
        restsForSeconds: seconds(restsForMs),
        isRefused: credential.isRefused,
      };
    }),
    lastError: errorJson(
      errors.reduce<LastError | undefined>(
        (last, one) =>
          last === undefined || one.atMs > last.atMs ? one : last,
        undefined,
      ),
    ),
  };
}

function errorJson(
  error: LastError | undefined,
): Record<string, string> | null {
  if (error === undefined) return null;
  return { at: time(error.atMs), kind: error.kind, message: error.message };
}

function time(epochMs: number): string {
  return new Date(epochMs).toISOString();
}

function seconds(durationMs: number): number {
  return Math.ceil(durationMs / 1_000);
}
