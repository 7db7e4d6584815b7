import type { Readable } from "node:stream";
import type { UpstreamAccount, UpstreamStatus } from "./status.ts";
import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryName, Tag } from "../oci/reference.ts";

/** What a HEAD of a manifest told; each part may be missing. */
export interface UpstreamManifestHead {
  readonly digest: Digest | undefined;
  readonly sizeBytes: number | undefined;
  readonly mediaType: string | undefined;
}

/** The bytes of a manifest, at most {@link MAX_MANIFEST_BYTES}; not hashed yet. */
export interface UpstreamManifest {
  readonly bytes: Buffer;
  /** The media type without parameters, where the upstream told one. */
  readonly mediaType: string | undefined;
  /** `Docker-Content-Digest`, where it is there and a digest. */
  readonly digestHeader: Digest | undefined;
}

export interface OpenBlobOptions {
  /** First byte wanted; absent or 0 without `lastByte` asks for the whole blob, without `Range`. */
  readonly offset?: number;
  /** Last byte wanted, inclusive. */
  readonly lastByte?: number;
  /** Endpoints (by their URL) that gave wrong bytes or broke: asked last. */
  readonly avoid?: ReadonlySet<string>;
  /** Ends the wait for headers and the body. */
  readonly signal: AbortSignal;
}

/** An open body. The caller reads it to its end or destroys it; its end alone proves nothing. */
export interface UpstreamBlob {
  readonly status: 200 | 206;
  /** Where in the blob the body starts: `offset` with 206, 0 with 200. */
  readonly offset: number;
  /** Of the whole blob, where told by Content-Length or Content-Range. */
  readonly sizeBytes: number | undefined;
  /** Errors of the body are UpstreamErrors (`interrupted`, `timeout`). */
  readonly body: Readable;
  /** For how long the bandwidth has held the body up in all; absent: not at all. */
  readonly pacedMs?: () => number;
  /** The URL of the endpoint that answered, for {@link OpenBlobOptions.avoid}. */
  readonly endpoint: string;
}

export interface UpstreamTags {
  readonly tags: readonly Tag[];
  /** False where a bound (pages, bytes, time) cut the list. */
  readonly isWhole: boolean;
}

/**
 * One upstream registry: its endpoints in order, tokens, redirects, retries and breakers.
 * Every method throws {@link UpstreamError}, ends when its signal aborts, and has bounds of its own.
 */
export interface UpstreamClient {
  /** The key in the configuration. */
  readonly name: string;
  readonly hasCredentials: boolean;
  /** Every endpoint's breaker is open, or rests after a 429 or 503; a probe may still be due. */
  isDown(): boolean;
  /** Nothing is under way: no request, and no body that is still read. */
  isIdle(): boolean;
  /**
   * At most a tenth is left of every account's pull budget: manifests that are cached should not be
   * fetched anew.
   */
  isBudgetSpared(): boolean;
  /** Less than half is left of every account's pull budget: only what a client asked for is fetched. */
  isBudgetHalfUsed(): boolean;
  /** The accounts that it is asked with, endpoint by endpoint; `anonymous` where there are none. */
  accounts(): readonly UpstreamAccount[];
  /** What an operator is shown. */
  status(): UpstreamStatus;
  headManifest(
    repository: RepositoryName,
    reference: Reference,
    signal: AbortSignal,
  ): Promise<UpstreamManifestHead>;
  /**
   * @param isGenuine false: these bytes are not those that were asked for. The next endpoint is
   *   asked then; where none has the right ones, the error is `digest-mismatch`
   */
  getManifest(
    repository: RepositoryName,
    reference: Reference,
    signal: AbortSignal,
    isGenuine?: (manifest: UpstreamManifest) => boolean,
  ): Promise<UpstreamManifest>;
  /**
   * Whether the blob is there: a HEAD, or, where that answers 401, 405, no length or a length of 0
   * that can't be true, a GET ended after its headers.
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
   * Follows the upstream's pages. Names that are no tags are left out.
   *
   * @param after where a list that was cut goes on
   */
  listTags(
    repository: RepositoryName,
    signal: AbortSignal,
    after?: Tag,
  ): Promise<UpstreamTags>;
  /**
   * The bytes of the referrers API's image index with all pages joined, unfiltered.
   * Where the API answers 404: kind `not-found`.
   */
  getReferrers(
    repository: RepositoryName,
    subject: Digest,
    signal: AbortSignal,
  ): Promise<Buffer>;
  /** It is no longer in force: failed endpoints are neither probed in the background nor reported any more. */
  retire(): void;
  /** Breaks everything off. */
  close(): Promise<void>;
}
