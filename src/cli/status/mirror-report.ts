import type { MirrorStatus } from "../../http/operator/api-status.ts";
import { type AskMirror, problemText } from "../running-mirror.ts";

/** The part of an item of `GET /api/v1/upstreams` that is shown. */
export interface UpstreamReport {
  readonly name: string;
  readonly state: "up" | "down" | "unauthorized" | "offline";
  readonly endpoints: readonly {
    readonly url: string;
    readonly breaker: "closed" | "open" | "half-open";
    readonly retryAfterSeconds: number;
  }[];
  readonly credentials: readonly CredentialReport[];
  readonly lastError: {
    readonly at: string;
    readonly kind: string;
    readonly message: string;
  } | null;
}

export interface CredentialReport {
  readonly name: string;
  readonly limit: number | null;
  readonly remaining: number | null;
  readonly resetsAt: string | null;
  readonly restsForSeconds: number;
  readonly isRefused: boolean;
}

/** The status of a mirror, with the details of its upstreams. */
export interface MirrorReport extends Omit<MirrorStatus, "upstreams"> {
  readonly upstreams: readonly UpstreamReport[];
}

/** @throws Error with the reason if the mirror does not answer as expected */
export async function readReport(ask: AskMirror): Promise<MirrorReport> {
  const [status, { upstreams }] = await Promise.all([
    read<MirrorStatus>(ask, "/api/v1/status"),
    read<Pick<MirrorReport, "upstreams">>(ask, "/api/v1/upstreams"),
  ]);
  return { ...status, upstreams };
}

async function read<T extends object>(ask: AskMirror, path: string) {
  const { status, body } = await ask("GET", path);
  if (status === 200 && typeof body === "object" && body !== null) {
    // The operator API is described by its schemas, which its tests hold it to.
    return body as T;
  }
  throw new Error(
    `the running mirror answered ${status}: ${problemText(body)}`,
  );
}
