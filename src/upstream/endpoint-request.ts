import type { RepositoryName } from "../oci/reference.ts";
import type { Permit } from "./endpoint-health.ts";
import type { UpstreamRequestKind } from "../wire/observer.ts";

/** One question to an endpoint. */
export interface EndpointRequest {
  readonly kind: Exclude<UpstreamRequestKind, "token">;
  readonly method: "GET" | "HEAD";
  readonly repository: RepositoryName;
  /** Behind the repository, as in `manifests/latest`; or the whole URL of a further page. */
  readonly target: string | URL;
  /** `bytes=5-` */
  readonly range?: string | undefined;
  /** False: a 401 to a token that was good so far is an answer (ECR Public, HEAD of a blob). */
  readonly isTokenDoubted?: boolean;
  readonly permit: Permit;
  readonly signal: AbortSignal;
}
