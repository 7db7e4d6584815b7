import type { FastifyInstance } from "fastify";
import type { HostedSummary } from "../../images/hosted-summaries.ts";
import { DENIED, json, shared } from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** The body of `GET /api/v1/status`. */
export interface MirrorStatus {
  readonly version: string;
  readonly startedAt: string;
  readonly offline: boolean;
  readonly upstreams: readonly string[];
  /**
   * The configured hosted registries, and those that still have content. Empty until the index has
   * answered once.
   */
  readonly hosted: readonly HostedSummary[];
  readonly storage: {
    /** Absolute: a command compares it with the root of its own configuration. */
    readonly root: string;
    readonly bytes: number;
    /** Null if there is no limit. */
    readonly limitBytes: number | null;
    readonly blobs: number;
    readonly manifests: number;
    readonly tags: number;
  };
}

/** The part of the program that reports on the mirror as a whole. */
export interface StatusSource {
  status(): Promise<MirrorStatus>;
}

const SCHEMA = {
  summary:
    "Returns version, upstreams, hosted registries and stored content of the mirror.",
  response: {
    "200": json("The mirror.", shared("Status")),
    ...DENIED,
  },
} satisfies OperationSchema;

/** `GET /api/v1/status`. */
export async function statusApi(
  app: FastifyInstance,
  source: StatusSource,
): Promise<void> {
  app.get("/api/v1/status", { schema: SCHEMA }, () => source.status());
}
