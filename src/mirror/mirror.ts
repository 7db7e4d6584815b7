import type { BlobStore } from "../storage/blob-store.ts";
import type { BlobVerifier } from "../storage/local/blobs/blob-verifier.ts";
import type { HotManifests } from "../storage/hot-manifests.ts";
import type { BlobRow, MetadataIndex } from "../storage/metadata-index.ts";
import type { Room } from "../retention/room.ts";
import type { Digest } from "../oci/digest.ts";
import type { Reference, RepositoryKey, Tag } from "../oci/reference.ts";
import { type Audit, NO_AUDIT } from "../telemetry/audit.ts";
import type { Clock, Schedule } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { UpstreamError, type UpstreamErrorKind } from "../wire/errors.ts";
import {
  negativeRefusal,
  offlineRefusal,
  policyRefusal,
  type Refusal,
  toRefusal,
  type Wanted,
} from "./answers.ts";
import { withinDeadline } from "./answer-deadline.ts";
import type { BlobAnswer, BlobDemand, BlobHead } from "./blobs/blob-answer.ts";
import { Blobs } from "./blobs/blobs.ts";
import { type ListedName, listRepositories } from "./lists/catalog.ts";
import { GoneTags } from "./manifests/gone-tags.ts";
import { Fills } from "./fills/fills.ts";
import { IndexChildren } from "./manifests/index-children.ts";
import { Links } from "./links.ts";
import { DigestManifests } from "./manifests/digest-manifests.ts";
import { ListRevalidation } from "./lists/list-revalidation.ts";
import type { ManifestAnswer } from "./manifests/manifest-answers.ts";
import { Manifests } from "./manifests/manifests.ts";
import { StoredManifests } from "./manifests/stored-manifests.ts";
import { StoredReads } from "./blobs/stored-reads.ts";
import { TagRevalidation } from "./manifests/tag-revalidation.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";
import { NegativeAnswers } from "./negative-answers.ts";
import type { Page, PageRequest } from "./lists/pages.ts";
import { Referrers, type ReferrersAnswer } from "./lists/referrers.ts";
import { StaleGate } from "./stale-gate.ts";
import { TagLists, type TagsAnswer } from "./lists/tag-lists.ts";

/** Answers readers. Every method throws {@link Refusal} and nothing else. */
export interface Mirror {
  /** @param isHead only the head is wanted, which is not a pull; absent: the manifest is pulled */
  getManifest(
    target: RepositoryKey,
    reference: Reference,
    isHead?: boolean,
  ): Promise<ManifestAnswer>;
  /** A hit that is in memory, at once; undefined where {@link getManifest} must be asked. Never throws. */
  recallManifest(
    target: RepositoryKey,
    reference: Reference,
    isHead?: boolean,
  ): ManifestAnswer | undefined;
  /** The caller closes the answer's body. */
  openBlob(
    target: RepositoryKey,
    digest: Digest,
    demand?: BlobDemand,
  ): Promise<BlobAnswer>;
  statBlob(target: RepositoryKey, digest: Digest): Promise<BlobHead>;
  listTags(target: RepositoryKey, page: PageRequest): Promise<TagsAnswer>;
  listReferrers(
    target: RepositoryKey,
    subject: Digest,
    artifactTypes: readonly string[],
  ): Promise<ReferrersAnswer>;
  /**
   * Repositories in the cache, as `upstream/repository`; of one upstream, without its name.
   *
   * @param maySee judges `upstream/repository`; of the others nothing is told, in `nextLast` neither
   */
  listRepositories(
    page: PageRequest,
    upstream: string | undefined,
    maySee: (name: string) => boolean,
    listedName: ListedName,
  ): Promise<Page<string>>;
  /** Asks the upstream what a tag points to now. */
  refreshTag(
    target: RepositoryKey,
    tag: Tag,
  ): Promise<{ readonly digest: Digest; readonly isChanged: boolean }>;
  /**
   * Asks the upstream again what refers to a manifest, and for the repository's list of tags if it
   * is remembered. An upstream that has no such list, or does not show it, is no failure.
   */
  refreshLists(target: RepositoryKey, subject: Digest): Promise<void>;
  /** What is answered where something is not there: the same for what somebody may not have. */
  absence(wanted: Wanted): Refusal;
  /** Downloads that somebody waits for run. */
  readonly isServingFills: boolean;
  /**
   * Takes other upstreams into force. Requests that run keep theirs; one that is gone is only
   * asked for by requests that were on their way.
   */
  replaceUpstreams(upstreams: readonly MirroredUpstream[]): void;
  /**
   * The stored bytes of a blob were found wrong: bodies that are read from them are cut.
   *
   * @param remove removes them, and returns whether that was possible
   */
  dropWrong(row: BlobRow, remove: () => Promise<boolean>): Promise<void>;
  /** Resolves when what was served from memory is known to be stored: some seconds later by itself. */
  settleServed(): Promise<void>;
  /** Ends every fill and keeps what came. */
  close(): Promise<void>;
}

export interface TemplatedUpstreams {
  /** @throws UpstreamError if no other may be made now */
  find(name: string): MirroredUpstream | undefined;
  /** One that was made. */
  peek(name: string): MirroredUpstream | undefined;
}

/** How an upstream answers for a list that it has not, or that is not for the mirror. */
const WITHHELD: ReadonlySet<UpstreamErrorKind> = new Set([
  "not-found",
  "unauthorized",
  "denied",
]);

export function createMirror(options: {
  readonly upstreams: readonly MirroredUpstream[];
  /** Upstreams that requests make from templates; absent: none. */
  readonly templated?: TemplatedUpstreams;
  /** Whether there may be any. May change at any time. */
  readonly mayBeTemplated?: () => boolean;
  readonly blobs: BlobStore;
  readonly index: MetadataIndex;
  readonly hot: HotManifests;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Told of tags that move. */
  readonly audit?: Audit;
  /** No upstream may be asked. May change at any time. */
  readonly isOffline: () => boolean;
  /** Who may read one repository need not be allowed to read its neighbour. May change at any time. */
  readonly hasRules?: () => boolean;
  /** How many downloads run at once, of all upstreams; absent: unlimited. May change at any time. */
  readonly maxFills?: () => number;
  /** How long the upstream is waited for where a stale answer may be given. */
  readonly patienceMs?: number;
  /** Absent: what is stored is not verified while it is served. */
  readonly verifier?: Pick<BlobVerifier, "verify" | "verifyLater">;
  /** Older verifications are done again at a hit; absent: none is. May change at any time. */
  readonly verifyAfterMs?: () => number;
  /** Absent: every fill has room until the disk says otherwise. */
  readonly room?: Pick<Room, "reserve" | "isShort">;
  /** Says when the children of a pulled index are fetched; absent: a moment after the pull. */
  readonly childrenSchedule?: Schedule | undefined;
}): Mirror {
  const { blobs: store, index, hot, clock, log, metrics, isOffline } = options;
  const upstreams = new Map(options.upstreams.map((up) => [up.name, up]));
  /** Without those that only requests on their way still ask for. */
  let inForce: ReadonlySet<string> = new Set(upstreams.keys());
  const { templated, mayBeTemplated = () => false } = options;
  const peek = (name: string): MirroredUpstream | undefined =>
    inForce.has(name)
      ? upstreams.get(name)
      : (templated?.peek(name) ?? upstreams.get(name));
  const links = new Links({
    index,
    isOffline,
    hasRules: options.hasRules ?? (() => false),
  });
  const fills = new Fills({
    store,
    index,
    clock,
    log,
    metrics,
    room: options.room,
    maxFills: options.maxFills ?? (() => Infinity),
    isSoleUpstream: () => upstreams.size === 1 && !mayBeTemplated(),
  });
  // One each for manifests, tags and referrers: a slow list does not make manifests stale.
  const newGate = (): StaleGate =>
    new StaleGate(
      options.patienceMs === undefined
        ? {}
        : { patienceMs: options.patienceMs },
    );
  const negative = new NegativeAnswers(clock);
  const gone = new GoneTags({ index, clock });
  const verifyAfterMs = options.verifyAfterMs ?? (() => Infinity);
  const stored = new StoredManifests({
    store,
    index,
    hot,
    clock,
    log,
    verifyAfterMs,
  });
  const digests = new DigestManifests({
    stored,
    index,
    links,
    negative,
    clock,
    metrics,
    isOffline,
  });
  const manifests = new Manifests({
    stored,
    digests,
    revalidation: new TagRevalidation({
      digests,
      stored,
      index,
      negative,
      gone,
      clock,
      log,
      audit: options.audit ?? NO_AUDIT,
    }),
    index,
    links,
    negative,
    gone,
    gate: newGate(),
    clock,
    isOffline,
  });
  const reads = new StoredReads({
    verifier: options.verifier,
    clock,
    verifyAfterMs,
  });
  const blobs = new Blobs({
    store,
    reads,
    index,
    fills,
    links,
    // Of their own: containerd asks for a digest as a manifest, and then as a blob.
    negative: new NegativeAnswers(clock),
    clock,
    isOffline,
  });
  const children = new IndexChildren({
    upstreamOf: peek,
    index,
    stored,
    digests,
    blobs,
    isOffline,
    isShort: () => options.room?.isShort === true,
    clock,
    log,
    schedule: options.childrenSchedule,
  });
  const listing = { clock, isOffline };
  const tagLists = new TagLists({
    index,
    clock,
    revalidation: new ListRevalidation({ ...listing, gate: newGate() }),
  });
  const referrers = new Referrers({
    index,
    clock,
    revalidation: new ListRevalidation({ ...listing, gate: newGate() }),
  });

  /** @throws Refusal if it may not be made now */
  const upstreamOf = (name: string, wanted: Wanted): MirroredUpstream => {
    let upstream: MirroredUpstream | undefined;
    try {
      upstream = inForce.has(name) ? undefined : templated?.find(name);
    } catch (error) {
      throw toRefusal(error, { wanted, hasCredentials: false });
    }
    upstream ??= upstreams.get(name);
    if (upstream === undefined) throw new TypeError(`no upstream ${name}`);
    return upstream;
  };

  /** The one border at which whatever was thrown becomes an answer. */
  const answer = async <T>(
    target: RepositoryKey,
    wanted: Wanted,
    reference: Reference | undefined,
    work: (upstream: MirroredUpstream, key: RepositoryKey) => Promise<T>,
  ): Promise<T> => {
    const upstream = upstreamOf(target.upstream, wanted);
    // Before anything is looked up: what was cached under another policy is not served either.
    if (!upstream.mayPull(target.repository, reference)) {
      throw policyRefusal(wanted);
    }
    try {
      return await work(upstream, target);
    } catch (error) {
      throw toRefusal(error, {
        wanted,
        hasCredentials: upstream.client.hasCredentials,
      });
    }
  };

  return {
    getManifest: (target, reference, isHead = false) =>
      answer(target, "manifest", reference, async (upstream, key) => {
        const found = await manifests.get(upstream, key, reference);
        children.onAnswered(key, found, isHead);
        return found;
      }),
    recallManifest: (target, reference, isHead = false) => {
      const upstream = peek(target.upstream);
      const found =
        upstream?.mayPull(target.repository, reference) === true
          ? manifests.recall(upstream, target, reference)
          : undefined;
      if (found !== undefined) children.onAnswered(target, found, isHead);
      return found;
    },
    openBlob: (target, digest, demand = {}) =>
      answer(target, "blob", { kind: "digest", digest }, (upstream, key) =>
        withinDeadline(
          blobs.open(upstream, key, digest, demand),
          upstream.name,
          (late) => {
            if (late.kind !== "unsatisfiable") late.body.close();
          },
        ),
      ),
    statBlob: (target, digest) =>
      answer(target, "blob", { kind: "digest", digest }, (upstream, key) =>
        blobs.stat(upstream, key, digest),
      ),
    listTags: (target, page) =>
      answer(target, "list", undefined, (upstream, key) =>
        tagLists.list(upstream, key, page),
      ),
    listReferrers: (target, subject, artifactTypes) =>
      answer(target, "list", undefined, (upstream, key) =>
        referrers.list(upstream, key, subject, artifactTypes),
      ),
    listRepositories: (page, upstream, maySee, listedName) =>
      listRepositories(index, page, upstream, maySee, listedName),
    absence: (wanted) =>
      isOffline() ? offlineRefusal(wanted) : negativeRefusal(wanted),
    refreshTag: (target, tag) =>
      answer(target, "manifest", { kind: "tag", tag }, (upstream, key) =>
        manifests.refresh(upstream, key, tag),
      ),
    refreshLists: (target, subject) =>
      answer(target, "list", undefined, async (upstream, key) => {
        await manifests.refreshReferrersTags(upstream, key, subject);
        await Promise.all([
          unlessWithheld(referrers.refresh(upstream, key, subject)),
          unlessWithheld(tagLists.refresh(upstream, key)),
        ]);
      }),
    replaceUpstreams: (replaced) => {
      for (const upstream of replaced) upstreams.set(upstream.name, upstream);
      inForce = new Set(replaced.map(({ name }) => name));
    },
    dropWrong: (row, remove) => reads.dropWrong(row, remove),
    settleServed: () => stored.settle(),
    get isServingFills() {
      return fills.hasReaders;
    },
    close: async () => {
      const stopped = children.stop();
      await fills.close();
      await manifests.close();
      await stopped;
    },
  };
}

async function unlessWithheld(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof UpstreamError) || !WITHHELD.has(error.kind)) {
      throw error;
    }
  }
}
