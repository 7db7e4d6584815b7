import type { FastifyInstance } from "fastify";

/** The last thing that went wrong at an endpoint; its message holds no secret. */
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

/** What `GET /api/v1/upstreams` tells of. */
export interface UpstreamsSource {
  /** In the configuration's order. */
  upstreams(): readonly UpstreamStatus[];
}

/**
 * `GET /api/v1/upstreams`:
 *
 * ```json
 * {"upstreams": [{
 *   "name": "docker.io", "state": "up", "tokensHeld": 3,
 *   "endpoints": [{"url": "https://registry-1.docker.io", "breaker": "closed",
 *     "retryAfterSeconds": 0, "lastError": null}],
 *   "credentials": [{"name": "acme", "endpoint": "https://registry-1.docker.io", "limit": 200, "remaining": 187, "source": "acme",
 *     "resetsAt": "2026-01-01T06:00:00.000Z", "restsForSeconds": 0, "isRefused": false}],
 *   "lastError": {"at": "2026-01-01T00:00:00.000Z", "kind": "timeout", "message": "…"}
 * }]}
 * ```
 *
 * What is not known is null. No secret is in it: credentials by name, tokens by number.
 */
export async function upstreamsApi(
  app: FastifyInstance,
  source: UpstreamsSource,
): Promise<void> {
  app.get("/api/v1/upstreams", (_request, reply) =>
    reply
      .header("cache-control", "no-store")
      .send({ upstreams: source.upstreams().map(toJson) }),
  );
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
