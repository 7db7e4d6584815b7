import type { FastifyInstance } from "fastify";
import { OPENAPI } from "./api-openapi.ts";

/** What the mirror is and holds. */
export interface MirrorStatus {
  readonly version: string;
  readonly startedAt: string;
  readonly offline: boolean;
  readonly upstreams: readonly string[];
  readonly storage: {
    /** Absolute: commands see by it that this mirror is the one of their configuration. */
    readonly root: string;
    readonly bytes: number;
    /** Null where nothing limits it. */
    readonly limitBytes: number | null;
    readonly blobs: number;
    readonly manifests: number;
    readonly tags: number;
  };
}

/** What the operator API tells of the mirror as a whole. */
export interface StatusSource {
  status(): Promise<MirrorStatus>;
}

/** `GET /api/v1/status` and `GET /api/v1/openapi.json`. */
export async function statusApi(
  app: FastifyInstance,
  source: StatusSource,
): Promise<void> {
  app.get("/api/v1/status", async (_request, reply) =>
    reply.header("cache-control", "no-store").send(await source.status()),
  );
  app.get("/api/v1/openapi.json", (_request, reply) => reply.send(OPENAPI));
}
