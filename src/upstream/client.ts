import type { Readable } from "node:stream";
import type { UpstreamAccount, UpstreamStatus } from "./status.ts";
import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryName, Tag } from "../oci/reference.ts";

/** The headers of a HEAD of a manifest; each may be missing. */
export interface UpstreamManifestHead {
  readonly digest: Digest | undefined;
  readonly sizeBytes: number | undefined;
  readonly mediaType: string | undefined;
}

/** The bytes of a manifest, at most {@link MAX_MANIFEST_BYTES}; not hashed yet. */
export interface UpstreamManifest {
  readonly bytes: Buffer;
  /** The media type without parameters, if the upstream sent one. */
  readonly mediaType: string | undefined;
  /** `Docker-Content-Digest`, if present and valid. */
  readonly digestHeader: Digest | undefined;
}

export interface OpenBlobOptions {
  /** First byte; absent or 0 without `lastByte` requests the whole blob, without `Range`. */
  readonly offset?: number;
  /** Last byte, inclusive. */
  readonly lastByte?: number;
  /** URLs of endpoints that sent wrong bytes or broke; they are tried last. */
  readonly avoid?: ReadonlySet<string>;
  /** Ends the wait for headers and the body. */
  readonly signal: AbortSignal;
}

/** An open body. The caller reads it to its end or destroys it; the end alone does not prove completeness. */
export interface UpstreamBlob {
  readonly status: 200 | 206;
  /** Position in the blob at which the body starts: the requested `offset` with 206, 0 with 200. */
  readonly offset: number;
  /** The size of the whole blob, if Content-Length or Content-Range states it. */
  readonly sizeBytes: number | undefined;
  /** Errors of the body are UpstreamErrors (`interrupted`, `timeout`). */
  readonly body: Readable;
  /** Returns the total time for which the bandwidth limit has paused the body; absent: 0. */
  readonly pacedMs?: () => number;
  /** The URL of the endpoint that answered, for {@link OpenBlobOptions.avoid}. */
  readonly endpoint: string;
}

export interface UpstreamTags {
  readonly tags: readonly Tag[];
  /** False if a bound (pages, bytes, time) cut the list. */
  readonly isWhole: boolean;
}

/**
 * One upstream registry: its endpoints in order, tokens, redirects, retries and breakers.
 * Every method throws {@link UpstreamError}, ends when its signal aborts, and is bounded in time.
 */
export interface UpstreamClient {
  /** The key in the configuration. */
  readonly name: string;
  readonly hasCredentials: boolean;
  /** True if every endpoint's breaker is open or rests after a 429 or 503; a probe may still be due. */
  isDown(): boolean;
  /** True if no request runs and no body is being read. */
  isIdle(): boolean;
  /**
   * True if at most a tenth of every account's pull budget is left: cached manifests should not be
   * fetched again.
   */
  isBudgetSpared(): boolean;
  /** True if less than half of every account's pull budget is left: only client requests are fetched. */
  isBudgetHalfUsed(): boolean;
  /** Returns the accounts of each endpoint; `anonymous` if none is configured. */
  accounts(): readonly UpstreamAccount[];
  /** Returns the state for the operator. */
  status(): UpstreamStatus;
  headManifest(
    repository: RepositoryName,
    reference: Reference,
    signal: AbortSignal,
  ): Promise<UpstreamManifestHead>;
  /**
   * Fetches a manifest.
   *
   * @param isGenuine returns false for bytes that are not the requested manifest; then the next
   *   endpoint is tried. The error is `digest-mismatch` if no endpoint has the right bytes
   */
  getManifest(
    repository: RepositoryName,
    reference: Reference,
    signal: AbortSignal,
    isGenuine?: (manifest: UpstreamManifest) => boolean,
  ): Promise<UpstreamManifest>;
  /**
   * Checks that a blob exists: by a HEAD or, if that is refused or returns no valid length, by a GET
   * that ends after its headers.
   */
  headBlob(
    repository: RepositoryName,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<{ readonly sizeBytes: number | undefined }>;
  openBlob(
    repository: RepositoryName,
    digest: Digest,
    options: OpenBlobOptions,
  ): Promise<UpstreamBlob>;
  /**
   * Lists tags over all pages of the upstream. Invalid names are left out.
   *
   * @param after the last tag of a list that was cut, to continue after it
   */
  listTags(
    repository: RepositoryName,
    signal: AbortSignal,
    after?: Tag,
  ): Promise<UpstreamTags>;
  /**
   * Returns the image index of the referrers API with all pages joined, unfiltered.
   *
   * @throws UpstreamError `not-found` if the API answers 404
   */
  getReferrers(
    repository: RepositoryName,
    subject: Digest,
    signal: AbortSignal,
  ): Promise<Buffer>;
  /** Ends background probes and reports: a reload has replaced this client. */
  retire(): void;
  /** Ends all requests and connections. */
  close(): Promise<void>;
}
