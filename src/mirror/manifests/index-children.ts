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

/** Of one index, those of the indexes below it included. */
const MAX_CHILDREN = 32;
/** Indexes that wait, of all upstreams together; one that finds no place waits for its next pull. */
const MAX_WAITING = 1_000;
/** Indexes whose children were fetched or failed. */
const MAX_REMEMBERED = 10_000;
/** The client that pulled the index asks for its own platform first. */
const START_AFTER_MS = 1_000;
/** After failures an index is left alone for so long. */
const REST_MS = 3_600_000;
/** An upstream that failed so often during one index is left alone. */
const MAX_FAILURES = 2;
/** No config is as large. */
const MAX_CONFIG_BYTES = MAX_MANIFEST_BYTES;
/** A config that takes longer is fetched when a client asks for it. */
const CONFIG_DEADLINE_MS = 60_000;

interface WaitingIndex {
  readonly key: RepositoryKey;
  readonly digest: Digest;
}

/**
 * - `held`: the upstream is not to be asked now; the next pull of the index tries again
 * - `failed`: left alone for a while
 */
type Outcome = "done" | "held" | "failed";

/**
 * Fetches the child manifests of an index, and their configs, after a client pulled the index:
 * clients such as containerd 2's `ctr` ask for all of them, also when the upstream is away. Layers
 * are fetched when requested.
 */
export class IndexChildren {
  readonly #upstreamOf: (name: string) => MirroredUpstream | undefined;
  readonly #index: Pick<BlobLinks, "getLinkedBlob">;
  readonly #stored: Pick<StoredManifests, "read">;
  readonly #digests: Pick<DigestManifests, "prefetch">;
  readonly #blobs: Pick<Blobs, "prefetch">;
  readonly #isOffline: () => boolean;
  readonly #isShort: () => boolean;
  readonly #clock: Clock;
  readonly #log: Pick<Logger, "debug">;
  readonly #schedule: Schedule;
  /** By index: when its children may be fetched again, monotonic. */
  readonly #restUntilMs = new LRUCache<string, number>({ max: MAX_REMEMBERED });
  /** By upstream, the first one first; an upstream that has none is not in it. */
  readonly #waiting = new Map<string, Map<string, WaitingIndex>>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #cancels = new Map<string, () => void>();
  #isStopped = false;

  constructor(options: {
    /** Undefined: no longer configured. */
    readonly upstreamOf: (name: string) => MirroredUpstream | undefined;
    readonly index: Pick<BlobLinks, "getLinkedBlob">;
    readonly stored: Pick<StoredManifests, "read">;
    readonly digests: Pick<DigestManifests, "prefetch">;
    readonly blobs: Pick<Blobs, "prefetch">;
    readonly isOffline: () => boolean;
    /** The storage has no room. */
    readonly isShort: () => boolean;
    readonly clock: Clock;
    readonly log: Pick<Logger, "debug">;
    readonly schedule?: Schedule | undefined;
  }) {
    this.#upstreamOf = options.upstreamOf;
    this.#index = options.index;
    this.#stored = options.stored;
    this.#digests = options.digests;
    this.#blobs = options.blobs;
    this.#isOffline = options.isOffline;
    this.#isShort = options.isShort;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  /**
   * A client was given the manifest, or only its head: programs that watch tags send HEAD without
   * end and pull nothing. Returns immediately and never throws.
   */
  onAnswered(
    key: RepositoryKey,
    { digest, mediaType, status }: ManifestAnswer,
    isHead: boolean,
  ): void {
    if (digest === undefined || !isIndex(mediaType) || this.#isStopped) return;
    const name = flightOf(key, digest);
    // Fetched again: it was evicted, and its children with it.
    if (status.outcome === "miss") this.#restUntilMs.delete(name);
    if (isHead) return;
    const restUntilMs = this.#restUntilMs.get(name);
    if (restUntilMs !== undefined) {
      if (this.#clock.monotonicMs() < restUntilMs) return;
      this.#restUntilMs.delete(name);
    }
    if (!this.#mayAsk(this.#upstreamOf(key.upstream))) return;
    let count = 0;
    for (const { size } of this.#waiting.values()) count += size;
    if (count >= MAX_WAITING) return;
    const waiting = this.#waiting.get(key.upstream) ?? new Map();
    waiting.set(name, { key, digest });
    this.#waiting.set(key.upstream, waiting);
    this.#start(key.upstream);
  }

  /** Begins nothing more. Resolves when the step that runs has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const cancel of this.#cancels.values()) cancel();
    this.#cancels.clear();
    this.#waiting.clear();
    await Promise.all(this.#running.values());
  }

  #start(upstream: string): void {
    if (this.#running.has(upstream) || this.#cancels.has(upstream)) return;
    const cancel = this.#schedule(() => {
      this.#cancels.delete(upstream);
      const work = this.#work(upstream).finally(() => {
        this.#running.delete(upstream);
        if (this.#waiting.has(upstream)) this.#start(upstream);
      });
      this.#running.set(upstream, work);
    }, START_AFTER_MS);
    this.#cancels.set(upstream, cancel);
  }

  /** One index after the other until none waits. Never rejects. */
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
        this.#log.debug(
          { err: error, ...wanted.key, digest: wanted.digest },
          "the children of an index could not be read",
        );
        outcome = "failed";
      }
      waiting.delete(name);
      if (outcome === "held") continue;
      this.#restUntilMs.set(
        name,
        outcome === "done" ? Infinity : this.#clock.monotonicMs() + REST_MS,
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
        // Evicted meanwhile: without it the child would be an image of its own.
        const isThere = await this.#index.getLinkedBlob(key, top);
        const upstream = this.#upstreamOf(key.upstream);
        if (isThere === undefined || !this.#mayAsk(upstream)) return "held";
        const reference = { kind: "digest", digest: child.digest } as const;
        if (!upstream.mayPull(key.repository, reference)) continue;
        try {
          const fetched = await this.#fetchChild(upstream, key, child.digest);
          // Or every hit of the index would cost a pull while the disk fails.
          if (fetched === "not-stored") return "failed";
          if (fetched === "index") indexes.push(child.digest);
        } catch (error) {
          this.#log.debug(
            { err: error, ...key, digest: child.digest },
            "a child of an index could not be fetched in the background",
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
      !this.#isOffline() &&
      !this.#isShort() &&
      !upstream.client.isDown() &&
      !upstream.client.isBudgetHalfUsed()
    );
  }

  /** @returns undefined if it is not stored: then its children are not stored either */
  async #readIndex(
    key: RepositoryKey,
    digest: Digest,
  ): Promise<ParsedManifest | undefined> {
    const row = await this.#index.getLinkedBlob(key, digest);
    if (row?.mediaType === undefined) return undefined;
    const { sizeBytes, mediaType } = row;
    const found = await this.#stored.read(key, digest, sizeBytes, mediaType);
    const parsed = found && parseManifest(found.bytes, mediaType);
    return parsed?.ok === true ? parsed : undefined;
  }

  /** @throws Refusal, RegistryError, UpstreamError, BrokenBody */
  async #fetchChild(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<ParsedManifest["kind"] | "not-stored"> {
    const { bytes, mediaType, isStored } = await this.#digests.prefetch(
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
    const row = await this.#index.getLinkedBlob(key, digest);
    if (row !== undefined) return;
    const end = new AbortController();
    await Promise.race([
      this.#blobs.prefetch(upstream, key, digest),
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
