import fastify, { type FastifyInstance } from "fastify";
import type { Metrics } from "../../telemetry/metrics.ts";
import { imagesApi, type ImagesSource } from "./api-images.ts";
import { scrubApi, type ScrubSource } from "./api-scrub.ts";
import { statusApi, type StatusSource } from "./api-status.ts";
import { upstreamsApi, type UpstreamsSource } from "./api-upstreams.ts";
import {
  guardOperatorApp,
  type OperatorGuardOptions,
} from "./operator-guard.ts";

/** What the operator API asks of the program. */
export interface OperatorSources
  extends ImagesSource, ScrubSource, StatusSource, UpstreamsSource {
  /** Brings the gauges up to date before they are read. */
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

/** Liveness, readiness, metrics and the operator API, on a listener of their own. */
export function createOperatorApp(
  metrics: Metrics,
  sources: OperatorSources,
  guard: OperatorGuardOptions,
): FastifyInstance {
  const app = fastify({
    logger: false,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
  });
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
  void app.register(upstreamsApi, sources);
  void app.register(statusApi, sources);
  void app.register(imagesApi, sources);
  void app.register(scrubApi, sources);
  return app;
}
