import type { FastifyInstance } from "fastify";
import type { Job } from "../../images/jobs/job.ts";
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
  /** As `/readyz` reports it: a word for each part. */
  readonly health: {
    readonly ready: boolean;
    readonly detail: Readonly<Record<string, string>>;
  };
  /** Pulls of mirrored content since the start; negative answers and errors are not counted. */
  readonly cache: {
    readonly requests: number;
    /** Answered from the cache, also after a revalidation. */
    readonly hits: number;
    /** Null before the first request. */
    readonly hitRatio: number | null;
    readonly servedBytes: number;
    readonly receivedBytes: number;
    /** Bytes that clients received and upstreams did not have to send. */
    readonly savedBytes: number;
  };
  readonly storage: {
    /** Absolute: a command compares it with the root of its own configuration. */
    readonly root: string;
    readonly bytes: number;
    /** Null if there is no limit. */
    readonly limitBytes: number | null;
    /** Of the file system; null if it does not report it. */
    readonly freeBytes: number | null;
    readonly blobs: number;
    readonly manifests: number;
    readonly tags: number;
    /** Since the start. */
    readonly evictedImages: number;
    /** The time since the last pull of the most recently evicted image; null before an eviction. */
    readonly oldestEvictedAgeSeconds: number | null;
  };
  readonly running: {
    readonly fillCount: number;
    /** At most 50 of the downloads into the cache. */
    readonly fills: readonly {
      /** `upstream/repository@digest`. */
      readonly ref: string;
      readonly bytes: number;
      /** Null while it is not known. */
      readonly bytesTotal: number | null;
      /** Clients that read the download. */
      readonly clients: number;
    }[];
    /** Jobs that have not ended, newest first, as lists show them. */
    readonly jobs: readonly Job[];
  };
}

/** The part of the program that reports on the mirror as a whole. */
export interface StatusSource {
  status(): Promise<MirrorStatus>;
}

const SCHEMA = {
  summary:
    "Returns version, upstreams, hosted registries, stored content, hits since the start, and running work of the mirror.",
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
