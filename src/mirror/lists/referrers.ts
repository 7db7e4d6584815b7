import { LRUCache } from "lru-cache";
import type {
  StoredReferrers,
  ReferrersRow,
} from "../../storage/list-index.ts";
import type { Digest } from "../../oci/digest.ts";
import { parseManifest } from "../../oci/manifest.ts";
import { OCI_INDEX } from "../../oci/media-type.ts";
import { emptyImageIndex, filterReferrers } from "../../oci/referrers.ts";
import { referrersTag, type RepositoryKey } from "../../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../../telemetry/cache-status.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../../wire/deadline.ts";
import type { ListRevalidation } from "./list-revalidation.ts";
import { flightOf } from "../manifests/manifest-answers.ts";
import { type MirroredUpstream } from "../mirrored-upstream.ts";

/** Memory for the lists of subjects that no repository has linked, of all repositories together. */
const MAX_UNLINKED_BYTES = 4 * 1024 * 1024;
/** Memory for the key, the row and the slots of the cache. */
const ENTRY_OVERHEAD_BYTES = 512;

export interface ReferrersAnswer {
  /** An image index. */
  readonly bytes: Buffer;
  readonly isFiltered: boolean;
  readonly status: CacheStatus;
  /** Time since the list was fetched; undefined if it was fetched for this answer. */
  readonly ageMs: number | undefined;
  readonly isStale: boolean;
}

interface ReferrersParts {
  readonly index: StoredReferrers;
  readonly clock: Clock;
  readonly revalidation: ListRevalidation<Buffer>;
}

/**
 * Answers requests for the referrers of a manifest, such as signatures and attestations: from the
 * upstream's API, or else from the tag that clients write if a registry has no such API.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
 */
export class Referrers {
  readonly #parts: ReferrersParts;
  /** Lists of subjects that are not linked; not stored, because clients can name any subject. */
  readonly #unlinked = new LRUCache<string, ReferrersRow>({
    maxSize: MAX_UNLINKED_BYTES,
    sizeCalculation: ({ body }) => body.length + ENTRY_OVERHEAD_BYTES,
  });

  constructor(parts: ReferrersParts) {
    this.#parts = parts;
  }

  /** @throws Refusal, UpstreamError */
  async list(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
    artifactTypes: readonly string[],
  ): Promise<ReferrersAnswer> {
    const row =
      (await this.#parts.index
        .getReferrers(key, subject)
        .catch(() => undefined)) ?? this.#unlinked.get(flightOf(key, subject));
    const ageMs =
      row === undefined
        ? undefined
        : this.#parts.clock.nowMs() - row.verifiedAtMs;
    const isFiltered = artifactTypes.length > 0;
    const answer = (
      body: Buffer,
      state: Pick<ReferrersAnswer, "status" | "ageMs" | "isStale">,
    ): ReferrersAnswer => ({
      bytes: isFiltered ? filterReferrers(body, artifactTypes) : body,
      isFiltered,
      ...state,
    });
    // As short as for an empty list: clients look for a signature that was just added.
    const ttlMs = upstream.freshness.notFoundTtlMs;
    if (row !== undefined && ageMs !== undefined) {
      if (ageMs >= 0 && ageMs < ttlMs) {
        const status = cacheStatus.hit(ttlMs - ageMs);
        return answer(row.body, { status, ageMs, isStale: false });
      }
    }
    const { list, status, isStale } = await this.#parts.revalidation.get({
      upstream,
      key,
      reference: subject,
      fetch: () => this.#fetch(upstream, key, subject),
      isKnown: row !== undefined,
      stale: row?.body,
      absent: emptyImageIndex(),
    });
    return answer(list, {
      status,
      ageMs: isStale ? ageMs : undefined,
      isStale,
    });
  }

  /** Fetches the list from the upstream, even if a fresh one is known. @throws Refusal, UpstreamError */
  async refresh(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
  ): Promise<void> {
    await this.#parts.revalidation.refresh({
      upstream,
      key,
      reference: subject,
      fetch: () => this.#fetch(upstream, key, subject),
    });
  }

  async #fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
  ): Promise<Buffer> {
    const body = await withDeadline(
      ANSWER_DEADLINE_MS,
      async (signal) =>
        (await unlessAbsent(() =>
          upstream.client.getReferrers(key.repository, subject, signal),
        )) ??
        (await unlessAbsent(() =>
          fallbackIndex(upstream, key, subject, signal),
        )) ??
        emptyImageIndex(),
    );
    const parsed = parseManifest(body, undefined);
    if (!parsed.ok || parsed.mediaType !== OCI_INDEX) {
      // An empty list would claim that nothing is signed.
      throw new UpstreamError(
        "bad-response",
        "the upstream's list of referrers is not an image index",
        { upstream: upstream.name },
      );
    }
    const isEmpty = parsed.children.length + parsed.skippedChildren === 0;
    await this.#keep(upstream, key, subject, body, isEmpty);
    return body;
  }

  /**
   * Stores a list if its subject is linked. Otherwise a client could fill the index with subjects of
   * its choice.
   */
  async #keep(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
    body: Buffer,
    isEmpty: boolean,
  ): Promise<void> {
    const row = { body, verifiedAtMs: this.#parts.clock.nowMs() };
    const name = flightOf(key, subject);
    this.#unlinked.delete(name);
    const isWritten = await this.#parts.index
      .putReferrers(key, subject, row)
      .catch(() => false);
    if (isWritten) return;
    if (isEmpty) {
      this.#parts.revalidation.noteAbsent({
        upstream,
        key,
        reference: subject,
      });
    } else {
      this.#unlinked.set(name, row);
    }
  }
}

async function fallbackIndex(
  upstream: MirroredUpstream,
  key: RepositoryKey,
  subject: Digest,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  const { bytes } = await upstream.client.getManifest(
    key.repository,
    { kind: "tag", tag: referrersTag(subject) },
    signal,
  );
  return bytes;
}

async function unlessAbsent<T>(
  fetch: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await fetch();
  } catch (error) {
    if (error instanceof UpstreamError && error.kind === "not-found") {
      return undefined;
    }
    throw error;
  }
}
