import fastify, { type FastifyInstance } from "fastify";
import type { Metrics } from "../telemetry/metrics.ts";
import {
  guardOperatorApp,
  type OperatorGuardOptions,
} from "./operator-guard.ts";

/** What the operator API asks of the program. */
export interface OperatorSources {
  /** Brings the gauges up to date before they are read. */
  refreshMetrics(): Promise<void>;
  readiness(): Promise<Readiness>;
}

export interface Readiness {
  readonly isReady: boolean;
  /** As in `{"index": "ok", "storage": "ENOSPC"}`: a word for each part. */
  readonly detail: Readonly<Record<string, string>>;
}

/** Liveness, readiness and metrics, on a listener of their own. */
export function createOperatorApp(
  metrics: Metrics,
  sources: OperatorSources,
  guard: OperatorGuardOptions,
): FastifyInstance {
  const app = fastify({ logger: false });
  guardOperatorApp(app, guard);
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
  return app;
}
