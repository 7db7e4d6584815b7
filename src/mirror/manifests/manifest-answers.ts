import type { TagRow } from "../../storage/tag-index.ts";
import type { Digest } from "../../oci/digest.ts";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { Freshness } from "../freshness.ts";

/** A manifest's bytes and their description. */
export interface Manifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
  /** Undefined only for schema 1, whose digest is not that of its bytes. */
  readonly digest: Digest | undefined;
}

export interface ManifestAnswer extends Manifest {
  readonly status: CacheStatus;
  /**
   * Time since the upstream last confirmed the tag, or since the content of a digest was fetched;
   * undefined if the upstream was asked for this answer.
   */
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}

/** A manifest from the upstream; not stored if the storage failed or the digest cannot be verified. */
export interface FetchedManifest extends Manifest {
  readonly isStored: boolean;
}

/** Builds the answer of a fresh tag. */
export function fresh(
  { bytes, mediaType, digest }: Manifest,
  { verifiedAtMs }: TagRow,
  { ttlMs }: Freshness & { readonly state: "fresh" },
  nowMs: number,
): ManifestAnswer {
  return {
    bytes,
    mediaType,
    digest,
    status: cacheStatus.hit(ttlMs),
    ageMs: Math.max(0, nowMs - verifiedAtMs),
    isStale: false,
  };
}

/** Builds an answer that is not stale. */
export function current(
  { bytes, mediaType, digest }: Manifest,
  status: CacheStatus,
): ManifestAnswer {
  return {
    bytes,
    mediaType,
    digest,
    status,
    ageMs: undefined,
    isStale: false,
  };
}

/** Returns the status of a manifest that was not in the cache. */
export function missStatus(
  { isStored }: FetchedManifest,
  isJoin: boolean,
): CacheStatus {
  if (isJoin) return cacheStatus.collapsed();
  return isStored ? cacheStatus.stored(200) : cacheStatus.notStored(200);
}

/** Whether a registry does not support the method, as some do not support HEAD. */
export function isHeadUnknown(error: unknown): boolean {
  return (
    error instanceof UpstreamError &&
    (error.status === 405 || error.status === 501)
  );
}

export function isNotFound(error: unknown): boolean {
  return error instanceof UpstreamError && error.kind === "not-found";
}

/** Returns the key under which concurrent requests for the same content share work. */
export function flightOf(key: RepositoryKey, reference: Tag | Digest): string {
  return `${key.upstream} ${key.repository} ${reference}`;
}
