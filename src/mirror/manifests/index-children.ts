import { setTimeout as delay } from "node:timers/promises";
import { LRUCache } from "lru-cache";
import type { BlobLinks } from "../../storage/blob-index.ts";
import type { Descriptor } from "../../oci/descriptor.ts";
import type { Digest } from "../../oci/digest.ts";
import {
  MAX_MANIFEST_BYTES,
  type ParsedManifest,
  parseManifest,
} from "../../oci/manifest.ts";
import { isIndex } from "../../oci/media-type.ts";
import {
  type Clock,
  type Schedule,
  scheduleUnref,
} from "../../telemetry/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { UpstreamError } from "../../wire/errors.ts";
import { Refusal } from "../answers.ts";
import type { Blobs } from "../blobs/blobs.ts";
import type { DigestManifests } from "./digest-manifests.ts";
import { flightOf, type ManifestAnswer } from "./manifest-answers.ts";
import type { MirroredUpstream } from "../mirrored-upstream.ts";
import type { StoredManifests } from "./stored-manifests.ts";
import type { RepositoryKey } from "../../oci/reference.ts";

/** Children of one index, including those of nested indexes. */
const MAX_CHILDREN = 32;
/** Indexes that wait, of all upstreams together; beyond that, an index waits for its next pull. */
const MAX_WAITING = 1_000;
/** Indexes whose children were fetched or failed. */
const MAX_REMEMBERED = 10_000;
/** The client that pulled the index requests its own platform first. */
const START_AFTER_MS = 1_000;
/** Time for which an index is skipped after failures. */
const REST_MS = 3_600_000;
/** Failures after which the rest of an index is skipped. */
const MAX_FAILURES = 2;
/** Larger than any config. */
const MAX_CONFIG_BYTES = MAX_MANIFEST_BYTES;
/** A config that takes longer is fetched when a client requests it. */
const CONFIG_DEADLINE_MS = 60_000;

interface WaitingIndex {
  readonly key: RepositoryKey;
  readonly digest: Digest;
}

/**
 * The outcome of fetching the children of an index.
 *
 * - `held`: the upstream must not be asked now; the next pull of the index tries again
 * - `failed`: the index is skipped for a while
 */
type Outcome = "done" | "held" | "failed";

interface ChildrenParts {
  /** Returns undefined if the upstream is no longer configured. */
  readonly upstreamOf: (name: string) => MirroredUpstream | undefined;
  readonly index: Pick<BlobLinks, "getLinkedBlob">;
  readonly stored: Pick<StoredManifests, "read">;
  readonly digests: Pick<DigestManifests, "prefetch">;
  readonly blobs: Pick<Blobs, "prefetch">;
  readonly isOffline: () => boolean;
  /** Whether the storage is out of room. */
  readonly isShort: () => boolean;
  readonly clock: Clock;
  readonly log: Pick<Logger, "debug">;
  readonly schedule?: Schedule | undefined;
}

/**
 * Fetches the child manifests of an index, and their configs, after a client pulled the index:
 * clients such as containerd 2's `ctr` request all of them, even while the upstream is down. Layers
 * are fetched when a client requests them.
 */
export class IndexChildren {
  readonly #parts: ChildrenParts;
  /** By index: when its children may be fetched again, monotonic. */
  readonly #restUntilMs = new LRUCache<string, number>({ max: MAX_REMEMBERED });
  /** By upstream, in order of arrival; an upstream without waiting indexes is absent. */
  readonly #waiting = new Map<string, Map<string, WaitingIndex>>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #cancels = new Map<string, () => void>();
  #isStopped = false;

  constructor(parts: ChildrenParts) {
    this.#parts = parts;
  }

  /**
   * Queues the children of an index that was answered. A HEAD queues nothing: programs that watch tags
   * send HEADs periodically and pull nothing. Returns immediately and never throws.
   */
  onAnswered(
    key: RepositoryKey,
    { digest, mediaType, status }: ManifestAnswer,
    isHead: boolean,
  ): void {
    if (digest === undefined || !isIndex(mediaType) || this.#isStopped) return;
    const name = flightOf(key, digest);
    // It was fetched again because it had been evicted, and its children with it.
    if (status.outcome === "miss") this.#restUntilMs.delete(name);
    if (isHead) return;
    const restUntilMs = this.#restUntilMs.get(name);
    if (restUntilMs !== undefined) {
      if (this.#parts.clock.monotonicMs() < restUntilMs) return;
      this.#restUntilMs.delete(name);
    }
    if (!this.#mayAsk(this.#parts.upstreamOf(key.upstream))) return;
    let count = 0;
    for (const { size } of this.#waiting.values()) count += size;
    if (count >= MAX_WAITING) return;
    const waiting = this.#waiting.get(key.upstream) ?? new Map();
    waiting.set(name, { key, digest });
    this.#waiting.set(key.upstream, waiting);
    this.#start(key.upstream);
  }

  /** Starts no further fetch. Resolves when the running one has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const cancel of this.#cancels.values()) cancel();
    this.#cancels.clear();
    this.#waiting.clear();
    await Promise.all(this.#running.values());
  }

  #start(upstream: string): void {
    if (this.#running.has(upstream) || this.#cancels.has(upstream)) return;
    const { schedule = scheduleUnref } = this.#parts;
    const cancel = schedule(() => {
      this.#cancels.delete(upstream);
      const work = this.#work(upstream).finally(() => {
        this.#running.delete(upstream);
        if (this.#waiting.has(upstream)) this.#start(upstream);
      });
      this.#running.set(upstream, work);
    }, START_AFTER_MS);
    this.#cancels.set(upstream, cancel);
  }

  /** Fetches the children of one waiting index after another. Never rejects. */
  async #work(upstream: string): Promise<void> {
    for (;;) {
      const waiting = this.#waiting.get(upstream);
      const [first] = waiting ?? [];
      if (waiting === undefined || first === undefined) {
        this.#waiting.delete(upstream);
        return;
      }
      const [name, wanted] = first;
      let outcome: Outcome;
      try {
        outcome = await this.#fetchAll(wanted);
      } catch (error) {
        this.#parts.log.debug(
          { err: error, ...wanted.key, digest: wanted.digest },
          "could not read the children of an index",
        );
        outcome = "failed";
      }
      waiting.delete(name);
      if (outcome === "held") continue;
      this.#restUntilMs.set(
        name,
        outcome === "done"
          ? Infinity
          : this.#parts.clock.monotonicMs() + REST_MS,
      );
    }
  }

  async #fetchAll({ key, digest: top }: WaitingIndex): Promise<Outcome> {
    const indexes = [top];
    const seen = new Set<Digest>(indexes);
    let failures = 0;
    for (const digest of indexes) {
      const parsed = await this.#readIndex(key, digest);
      if (parsed === undefined) return "held";
      for (const child of parsed.children) {
        if (child.role !== "manifest" || seen.has(child.digest)) continue;
        if (seen.size > MAX_CHILDREN) return failures > 0 ? "failed" : "done";
        seen.add(child.digest);
        // If the index was evicted in the meantime, its child would count as a separate image.
        const linked = await this.#parts.index.getLinkedBlob(key, top);
        const upstream = this.#parts.upstreamOf(key.upstream);
        if (linked === undefined || !this.#mayAsk(upstream)) return "held";
        const reference = { kind: "digest", digest: child.digest } as const;
        if (!upstream.mayPull(key.repository, reference)) continue;
        try {
          const fetched = await this.#fetchChild(upstream, key, child.digest);
          // Otherwise every hit of the index would cost a pull while the disk fails.
          if (fetched === "not-stored") return "failed";
          if (fetched === "index") indexes.push(child.digest);
        } catch (error) {
          this.#parts.log.debug(
            { err: error, ...key, digest: child.digest },
            "could not fetch a child of an index in the background",
          );
          if (isAbsent(error)) continue;
          failures += 1;
          if (failures >= MAX_FAILURES) return "failed";
        }
      }
    }
    return failures > 0 ? "failed" : "done";
  }

  #mayAsk(
    upstream: MirroredUpstream | undefined,
  ): upstream is MirroredUpstream {
    return (
      upstream !== undefined &&
      !this.#isStopped &&
      !this.#parts.isOffline() &&
      !this.#parts.isShort() &&
      !upstream.client.isDown() &&
      !upstream.client.isBudgetHalfUsed()
    );
  }

  /** @returns undefined if the index is not stored; then its children cannot be linked to it */
  async #readIndex(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<ParsedManifest | undefined> {
    const row = await this.#parts.index.getLinkedBlob(key, digest);
    if (row?.mediaType === undefined) return undefined;
    const { sizeBytes, mediaType } = row;
    const found = await this.#parts.stored.read(
      key,
      digest,
      sizeBytes,
      mediaType,
    );
    const parsed = found && parseManifest(found.bytes, mediaType);
    return parsed?.ok === true ? parsed : undefined;
  }

  /** @throws Refusal, RegistryError, UpstreamError, BrokenBody */
  async #fetchChild(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<ParsedManifest["kind"] | "not-stored"> {
    const { bytes, mediaType, isStored } = await this.#parts.digests.prefetch(
      upstream,
      key,
      digest,
    );
    if (!isStored) return "not-stored";
    const parsed = parseManifest(bytes, mediaType);
    if (!parsed.ok) return "opaque";
    const config = parsed.children.find((one) => one.digest === parsed.config);
    if (config !== undefined) await this.#fetchConfig(upstream, key, config);
    return parsed.kind;
  }

  async #fetchConfig(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    { digest, sizeBytes }: Descriptor,
  ): Promise<void> {
    if (sizeBytes > MAX_CONFIG_BYTES || !this.#mayAsk(upstream)) return;
    const row = await this.#parts.index.getLinkedBlob(key, digest);
    if (row !== undefined) return;
    const end = new AbortController();
    await Promise.race([
      this.#parts.blobs.prefetch(upstream, key, digest),
      delay(CONFIG_DEADLINE_MS, undefined, { signal: end.signal, ref: false }),
    ]).finally(() => end.abort());
  }
}

function isAbsent(error: unknown): boolean {
  return (
    error instanceof Refusal ||
    (error instanceof UpstreamError && error.kind === "not-found")
  );
}
