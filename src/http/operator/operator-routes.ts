import fastify, {
  type FastifyInstance,
  type FastifyServerOptions,
} from "fastify";
import type { Metrics } from "../../telemetry/metrics.ts";
import { operatorApi, type OperatorApiSources } from "./operator-api.ts";
import {
  guardOperatorApp,
  type OperatorGuardOptions,
} from "./operator-guard.ts";
import { handleBadPath, handleUnknownRoute } from "./problem.ts";

/** The parts of the program that the operator listener calls. */
export interface OperatorSources extends OperatorApiSources {
  /** Updates the gauges before they are read. */
  refreshMetrics(): Promise<void>;
  readiness(): Promise<Readiness>;
}

export interface Readiness {
  readonly isReady: boolean;
  /** As in `{"index": "ok", "storage": "ENOSPC"}`: a word for each part. */
  readonly detail: Readonly<Record<string, string>>;
}

/** An image's reference has up to two names of 255 characters and a digest. */
const MAX_PARAM_LENGTH = 1_024;

type Constraint = NonNullable<
  NonNullable<FastifyServerOptions["routerOptions"]>["constraints"]
>[string];

/**
 * Chooses between the routes of `/api/v1/images/*` by the last part of the path: the reference
 * before it has any number of slashes, escaped or not, and a wildcard has nothing after it.
 */
const ACTION_CONSTRAINT: Constraint = {
  name: "action",
  storage() {
    const handlers = new Map<
      unknown,
      ReturnType<ReturnType<Constraint["storage"]>["get"]>
    >();
    return {
      get: (action) => handlers.get(action) ?? null,
      set: (action, handler) => void handlers.set(action, handler),
    };
  },
  deriveConstraint: ({ url = "" }) =>
    /^[^?#]*(?:\/|%2[Ff])(pin|refresh)(?:[?#]|$)/.exec(url)?.[1] ?? "",
};

/** Liveness, readiness, metrics and the operator API, on a listener of their own. */
export function createOperatorApp(
  metrics: Metrics,
  sources: OperatorSources,
  guard: OperatorGuardOptions,
): FastifyInstance {
  const app = fastify({
    logger: false,
    frameworkErrors: handleBadPath,
    routerOptions: {
      maxParamLength: MAX_PARAM_LENGTH,
      constraints: { action: ACTION_CONSTRAINT },
    },
  });
  guardOperatorApp(app, guard);
  app.setNotFoundHandler(handleUnknownRoute);
  app.get("/healthz", () => ({ status: "ok" }));
  app.get("/readyz", async (_request, reply) => {
    const { isReady, detail } = await sources.readiness();
    return reply
      .code(isReady ? 200 : 503)
      .send({ status: isReady ? "ready" : "not ready", ...detail });
  });
  app.get("/metrics", async (_request, reply) => {
    await sources.refreshMetrics();
    const text = await metrics.registry.metrics();
    return reply.type(metrics.registry.contentType).send(text);
  });
  void app.register(operatorApi, sources);
  return app;
}
