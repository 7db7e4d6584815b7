import type { TagRow } from "../../storage/tag-index.ts";
import type { Digest } from "../../oci/digest.ts";
import type { RepositoryKey, Tag } from "../../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import { UpstreamError } from "../../wire/errors.ts";
import type { Freshness } from "../freshness.ts";

/** A manifest's bytes and what they are. */
export interface Manifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
  /** Undefined only for schema 1, whose digest is not that of its bytes. */
  readonly digest: Digest | undefined;
}

export interface ManifestAnswer extends Manifest {
  readonly status: CacheStatus;
  /** Since the upstream last confirmed it, or gave what is named by its digest; undefined where it has just been asked. */
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}

/** From the upstream; not stored where the storage failed, or its digest can't be verified. */
export interface FetchedManifest extends Manifest {
  readonly isStored: boolean;
}

/** A hit inside its life. */
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

/** What is told of a manifest that the cache had not. */
export function missStatus(
  { isStored }: FetchedManifest,
  isJoin: boolean,
): CacheStatus {
  if (isJoin) return cacheStatus.collapsed();
  return isStored ? cacheStatus.stored(200) : cacheStatus.notStored(200);
}

export function isHeadUnknown(error: unknown): boolean {
  return (
    error instanceof UpstreamError &&
    (error.status === 405 || error.status === 501)
  );
}

export function isNotFound(error: unknown): boolean {
  return error instanceof UpstreamError && error.kind === "not-found";
}

export function flightOf(key: RepositoryKey, reference: Tag | Digest): string {
  return `${key.upstream} ${key.repository} ${reference}`;
}
