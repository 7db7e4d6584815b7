import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryKey } from "../oci/reference.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { Clock } from "../telemetry/clock.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { Admission } from "./admission.ts";
import { offlineRefusal, Refusal, type Wanted } from "./answers.ts";
import type { MirrorParts } from "./build-mirror.ts";
import {
  isHeadUnknown,
  type Manifest,
  type ManifestAnswer,
} from "./manifests/manifest-answers.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";

/** A manifest that was read without being kept. */
export interface PeekedManifest extends Manifest {
  /** True: the cache has it already. */
  readonly isStored: boolean;
}

/** The pull budget of an upstream, all its accounts together. */
export interface PullBudget {
  /** Undefined if the upstream states none. */
  readonly remaining: number | undefined;
  /**
   * Epoch time until which the rest is kept for clients, or the upstream must not be asked;
   * undefined: manifests may be fetched.
   */
  readonly pausedUntilMs: number | undefined;
}

/** The requests of work that no client waits for; see {@link Mirror} for their errors. */
export interface Warming {
  /**
   * Returns a manifest and stores it: as `getManifest`, but the children of an index are left to the
   * caller.
   */
  fetchManifest(
    target: RepositoryKey,
    reference: Reference,
  ): Promise<ManifestAnswer>;
  /**
   * Asks the upstream for the digest of a manifest by a HEAD, which costs no pull and stores nothing.
   *
   * @returns undefined if the upstream does not state it without the body
   */
  headManifest(
    target: RepositoryKey,
    reference: Reference,
  ): Promise<Digest | undefined>;
  /**
   * Reads a manifest and keeps nothing.
   *
   * @returns undefined if it is not stored, and the upstream counts pulls
   */
  peekManifest(
    target: RepositoryKey,
    reference: Reference,
  ): Promise<PeekedManifest | undefined>;
  /** Fetches the repository's list of tags again, so that `listTags` returns a current one. */
  refreshTagList(target: RepositoryKey): Promise<void>;
  /** Returns the bytes that a running download of the blob has received; 0 if none runs. */
  receivedBytes(target: RepositoryKey, digest: Digest): number;
  pullBudget(upstream: string): PullBudget;
}

interface WarmingParts extends Pick<
  MirrorParts,
  "upstreams" | "manifests" | "digests" | "stored" | "fills" | "tagLists"
> {
  readonly index: Pick<BlobLinks, "getLinkedBlob" | "getUpstreamBlob">;
  readonly admission: Admission;
  readonly clock: Clock;
  readonly isOffline: () => boolean;
}

/** As `createMirror` makes it: finds the upstream, and turns errors into refusals. */
type Answer = <T>(
  target: RepositoryKey,
  wanted: Wanted,
  reference: Reference | undefined,
  work: (upstream: MirroredUpstream) => Promise<T>,
) => Promise<T>;

export function createWarming(parts: WarmingParts, answer: Answer): Warming {
  const { upstreams, manifests, digests, fills, tagLists } = parts;
  return {
    fetchManifest: (target, reference) =>
      answer(target, "manifest", reference, async (upstream) => {
        const found = await manifests.get(upstream, target, reference);
        const verdict = await parts.admission.admit(
          upstream,
          target,
          reference,
          found,
          false,
        );
        if (verdict instanceof Refusal) throw verdict;
        return verdict;
      }),
    headManifest: (target, reference) =>
      answer(target, "manifest", reference, async ({ client }) => {
        if (parts.isOffline()) throw offlineRefusal("manifest");
        try {
          const head = await digests.bounded((signal) =>
            client.headManifest(target.repository, reference, signal),
          );
          return head.digest;
        } catch (error) {
          if (isHeadUnknown(error)) return undefined;
          throw error;
        }
      }),
    peekManifest: (target, reference) =>
      answer(target, "manifest", reference, (upstream) =>
        peekManifest(parts, upstream, target, reference),
      ),
    refreshTagList: (target) =>
      answer(target, "list", undefined, (upstream) =>
        tagLists.refresh(upstream, target),
      ),
    receivedBytes: ({ upstream }, digest) =>
      fills.receivedBytes(upstream, digest),
    pullBudget: (name) => {
      const client = upstreams.peek(name)?.client;
      return client === undefined
        ? { remaining: undefined, pausedUntilMs: undefined }
        : budgetOf(client, parts.clock.nowMs());
    },
  };
}

async function peekManifest(
  { index, stored, digests, isOffline }: WarmingParts,
  { client }: MirroredUpstream,
  target: RepositoryKey,
  reference: Reference,
): Promise<PeekedManifest | undefined> {
  const digest = reference.kind === "digest" ? reference.digest : undefined;
  if (digest !== undefined) {
    const row =
      (await index.getLinkedBlob(target, digest)) ??
      (await index.getUpstreamBlob(target.upstream, digest));
    if (row?.mediaType !== undefined) {
      const { sizeBytes, mediaType } = row;
      const found = await stored.read(target, digest, sizeBytes, mediaType);
      if (found !== undefined) return { ...found, isStored: true };
    }
  }
  if (isOffline()) throw offlineRefusal("manifest");
  if (client.accounts().some(({ budget }) => budget !== undefined)) {
    return undefined;
  }
  const fetched = await digests.bounded((signal) =>
    client.getManifest(
      target.repository,
      reference,
      signal,
      ({ bytes }) => digest === undefined || digests.isHashOf(digest, bytes),
    ),
  );
  const { bytes, mediaType = "", digestHeader } = fetched;
  return { bytes, mediaType, digest: digest ?? digestHeader, isStored: false };
}

function budgetOf(client: UpstreamClient, nowMs: number): PullBudget {
  const accounts = client.accounts();
  let remaining: number | undefined;
  let pausedUntilMs = Infinity;
  for (const { budget, restsForMs } of accounts) {
    if (budget !== undefined) remaining = (remaining ?? 0) + budget.remaining;
    pausedUntilMs = Math.min(
      pausedUntilMs,
      restsForMs > 0 ? nowMs + restsForMs : (budget?.resetsAtMs ?? nowMs),
    );
  }
  const isPaused =
    client.isBudgetSpared() ||
    accounts.every(({ restsForMs }) => restsForMs > 0);
  return { remaining, pausedUntilMs: isPaused ? pausedUntilMs : undefined };
}
