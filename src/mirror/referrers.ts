import type { MetadataIndex, RepositoryKey } from "../cache/metadata-index.ts";
import { type Digest, digestAlgorithm, digestHex } from "../oci/digest.ts";
import {
  emptyImageIndex,
  filterReferrers,
  isImageIndex,
} from "../oci/referrers.ts";
import { parseTag } from "../oci/reference.ts";
import { type CacheStatus, cacheStatus } from "../telemetry/cache-status.ts";
import type { Clock } from "../telemetry/clock.ts";
import { UpstreamError } from "../upstream/errors.ts";
import {
  judgeUpstreamFailure,
  offlineRefusal,
  staleStatus,
} from "./answers.ts";
import {
  ANSWER_DEADLINE_MS,
  type MirroredUpstream,
} from "./mirrored-upstream.ts";
import { SingleFlight } from "./single-flight.ts";

/** The fallback tag keeps 64 digits of any digest. */
const FALLBACK_TAG_HEX_LENGTH = 64;

export interface ReferrersAnswer {
  /** An image index. */
  readonly bytes: Buffer;
  readonly isFiltered: boolean;
  readonly status: CacheStatus;
  readonly isStale: boolean;
}

/**
 * What refers to a manifest: signatures, attestations. The upstream's API, else the tag that
 * clients write where there is no API.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
 */
export class Referrers {
  readonly #index: MetadataIndex;
  readonly #clock: Clock;
  readonly #isOffline: boolean;
  readonly #fetches = new SingleFlight<Buffer>();

  constructor(options: {
    index: MetadataIndex;
    clock: Clock;
    isOffline: boolean;
  }) {
    this.#index = options.index;
    this.#clock = options.clock;
    this.#isOffline = options.isOffline;
  }

  /** @throws Refusal, UpstreamError */
  async list(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
    artifactTypes: readonly string[],
  ): Promise<ReferrersAnswer> {
    const row = await this.#index
      .getReferrers(key, subject)
      .catch(() => undefined);
    const ageMs =
      row === undefined ? Infinity : this.#clock.nowMs() - row.verifiedAtMs;
    const answer = (
      body: Buffer,
      status: CacheStatus,
      isStale: boolean,
    ): ReferrersAnswer => ({
      bytes:
        artifactTypes.length === 0
          ? body
          : filterReferrers(body, artifactTypes),
      isFiltered: artifactTypes.length > 0,
      status,
      isStale,
    });
    const ttlMs = upstream.freshness.tagTtlMs;
    if (row !== undefined && ageMs >= 0 && ageMs < ttlMs) {
      return answer(row.body, cacheStatus.hit(ttlMs - ageMs), false);
    }
    if (this.#isOffline) {
      if (row === undefined) throw offlineRefusal("list");
      return answer(row.body, cacheStatus.staleHit(), true);
    }
    try {
      const body = await this.#fetches.run(
        `${key.upstream} ${key.repository} ${subject}`,
        () => this.#fetch(upstream, key, subject),
      );
      return answer(body, cacheStatus.stored(200), false);
    } catch (error) {
      if (row === undefined || !(error instanceof UpstreamError)) throw error;
      const { stale } = judgeUpstreamFailure(error, {
        wanted: "list",
        hasCredentials: upstream.client.hasCredentials,
      });
      if (stale === "never") throw error;
      return answer(row.body, staleStatus(error), true);
    }
  }

  async #fetch(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    subject: Digest,
  ): Promise<Buffer> {
    const signal = AbortSignal.timeout(ANSWER_DEADLINE_MS);
    const found =
      (await absent(() =>
        upstream.client.getReferrers(key.repository, subject, signal),
      )) ?? (await absent(() => fallbackIndex(upstream, key, subject, signal)));
    const body =
      found !== undefined && isImageIndex(found) ? found : emptyImageIndex();
    await this.#index
      .putReferrers(key, subject, { body, verifiedAtMs: this.#clock.nowMs() })
      .catch(() => {});
    return body;
  }
}

async function fallbackIndex(
  upstream: MirroredUpstream,
  key: RepositoryKey,
  subject: Digest,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  const tag = parseTag(
    `${digestAlgorithm(subject)}-${digestHex(subject).slice(0, FALLBACK_TAG_HEX_LENGTH)}`,
  );
  if (tag === undefined) return undefined;
  const { bytes } = await upstream.client.getManifest(
    key.repository,
    { kind: "tag", tag },
    signal,
  );
  return bytes;
}

async function absent<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof UpstreamError && error.kind === "not-found") {
      return undefined;
    }
    throw error;
  }
}
