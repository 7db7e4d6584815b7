import type { RepositoryName } from "../oci/reference.ts";
import type { Permit } from "./endpoint-health.ts";
import type { UpstreamRequestKind } from "../wire/observer.ts";

/** One request to an endpoint. */
export interface EndpointRequest {
  readonly kind: Exclude<UpstreamRequestKind, "token">;
  readonly method: "GET" | "HEAD";
  readonly repository: RepositoryName;
  /** The path after the repository, for example `manifests/latest`; or the whole URL of a further page. */
  readonly target: string | URL;
  /** `bytes=5-` */
  readonly range?: string | undefined;
  /** False: a 401 to a valid token is an answer (ECR Public answers it to the HEAD of a blob). */
  readonly isTokenDoubted?: boolean;
  readonly permit: Permit;
  readonly signal: AbortSignal;
}
