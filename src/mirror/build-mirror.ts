import type { BlobStore } from "../storage/blob-store.ts";
import type { BlobVerifier } from "../storage/blob-verifier.ts";
import type { HotManifests } from "../storage/hot-manifests.ts";
import type {
  BlobLinks,
  BlobRecords,
  FillIntents,
} from "../storage/blob-index.ts";
import type { ImageGraph } from "../storage/graph-index.ts";
import type { StoredReferrers, StoredTagLists } from "../storage/list-index.ts";
import type { UseIndex } from "../storage/metadata-index.ts";
import type { TagIndex } from "../storage/tag-index.ts";
import type { Room } from "../retention/room.ts";
import { type Audit, NO_AUDIT } from "../telemetry/audit.ts";
import type { Clock, Schedule } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Admission } from "./admission.ts";
import { Blobs } from "./blobs/blobs.ts";
import { StoredReads } from "../bodies/stored-reads.ts";
import {
  CurrentUpstreams,
  type TemplatedUpstreams,
} from "./current-upstreams.ts";
import { Fills } from "./fills/fills.ts";
import { Links } from "./links.ts";
import { ListRevalidation } from "./lists/list-revalidation.ts";
import { Referrers } from "./lists/referrers.ts";
import { TagLists } from "./lists/tag-lists.ts";
import { DigestManifests } from "./manifests/digest-manifests.ts";
import { GoneTags } from "./manifests/gone-tags.ts";
import { IndexChildren } from "./manifests/index-children.ts";
import { Manifests } from "./manifests/manifests.ts";
import { StoredManifests } from "./manifests/stored-manifests.ts";
import { TagRevalidation } from "./manifests/tag-revalidation.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";
import { NegativeAnswers } from "./negative-answers.ts";
import { StaleGate } from "./stale-gate.ts";

type MirrorIndex = BlobLinks &
  Pick<BlobRecords, "getBlob" | "recordBlob" | "noteVerified" | "forgetBlob"> &
  FillIntents &
  Pick<ImageGraph, "findDescriptor" | "isComplete"> &
  StoredReferrers &
  StoredTagLists &
  TagIndex &
  Pick<UseIndex, "touchBlob" | "touchTag" | "touchManifest">;

export interface MirrorOptions {
  readonly upstreams: readonly MirroredUpstream[];
  /** Absent: no upstream is created from a template. */
  readonly templated?: TemplatedUpstreams;
  /** Whether templates are configured. May change at any time. */
  readonly mayBeTemplated?: () => boolean;
  readonly blobs: BlobStore;
  readonly index: MirrorIndex;
  readonly hot: HotManifests;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Absent: {@link PATTERN_ADMISSION}. */
  readonly admission?: Admission;
  /** Records tags that move. */
  readonly audit?: Audit;
  /** Whether upstream requests are forbidden. May change at any time. */
  readonly isOffline: () => boolean;
  /**
   * Whether access rules exist, so that a client allowed to read one repository may not be allowed
   * to read another of the same upstream. May change at any time.
   */
  readonly hasRules?: () => boolean;
  /** Downloads that may run concurrently, of all upstreams; absent: unlimited. May change at any time. */
  readonly maxFills?: () => number;
  /** How long a request waits for the upstream if a stale answer is allowed. */
  readonly patienceMs?: number;
  /** Absent: stored blobs are not verified while they are served. */
  readonly verifier?: Pick<BlobVerifier, "verify" | "verifyLater">;
  /** Age after which a hit has a blob verified again; absent: never. May change at any time. */
  readonly verifyAfterMs?: () => number;
  /** Decides which stored blobs are verified; absent: one is created with `verifier`. */
  readonly reads?: StoredReads;
  /** Absent: every fill has room until the disk reports that it is full. */
  readonly room?: Pick<Room, "reserve" | "isShort">;
  /** Schedules the fetch of an index's children; absent: a moment after the pull. */
  readonly childrenSchedule?: Schedule | undefined;
}

/** The services that answer requests; see {@link createMirror}. */
export interface MirrorParts {
  readonly upstreams: CurrentUpstreams;
  readonly stored: StoredManifests;
  readonly digests: DigestManifests;
  readonly manifests: Manifests;
  readonly children: IndexChildren;
  readonly fills: Fills;
  readonly reads: StoredReads;
  readonly blobs: Blobs;
  readonly tagLists: TagLists;
  readonly referrers: Referrers;
}

/** Builds the services of one mirror and connects them. */
export function buildMirror(options: MirrorOptions): MirrorParts {
  const upstreams = new CurrentUpstreams(options);
  const { index, clock, log, isOffline } = options;
  const links = new Links({
    index,
    isOffline,
    hasRules: options.hasRules ?? (() => false),
  });
  const { stored, digests, manifests } = buildManifests(options, links);
  const { fills, reads, blobs } = buildBlobs(options, links, upstreams);
  const children = new IndexChildren({
    upstreamOf: (name) => upstreams.peek(name),
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
  const lists = buildLists(options);
  return {
    upstreams,
    stored,
    digests,
    manifests,
    children,
    fills,
    reads,
    blobs,
    ...lists,
  };
}

function buildManifests(
  options: MirrorOptions,
  links: Links,
): Pick<MirrorParts, "stored" | "digests" | "manifests"> {
  const { blobs: store, index, hot, clock, log, metrics, isOffline } = options;
  const negative = new NegativeAnswers(clock);
  const gone = new GoneTags({ index, clock });
  const stored = new StoredManifests({
    store,
    index,
    hot,
    clock,
    log,
    verifyAfterMs: verifyAfterMsOf(options),
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
  const audit = options.audit ?? NO_AUDIT;
  const parts = { stored, digests, index, negative, gone, clock };
  const revalidation = new TagRevalidation({ ...parts, log, audit });
  const gate = newGate(options);
  const manifests = new Manifests({
    ...parts,
    revalidation,
    links,
    gate,
    isOffline,
  });
  return { stored, digests, manifests };
}

function buildBlobs(
  options: MirrorOptions,
  links: Links,
  upstreams: CurrentUpstreams,
): Pick<MirrorParts, "fills" | "reads" | "blobs"> {
  const { blobs: store, index, clock, log, metrics, isOffline } = options;
  const fills = new Fills({
    store,
    index,
    clock,
    log,
    metrics,
    room: options.room,
    maxFills: options.maxFills ?? (() => Infinity),
    isSoleUpstream: () => upstreams.isSole(),
  });
  const reads =
    options.reads ??
    new StoredReads({
      verifier: options.verifier,
      clock,
      verifyAfterMs: verifyAfterMsOf(options),
    });
  const blobs = new Blobs({
    store,
    reads,
    index,
    fills,
    links,
    // Not the one of manifests: containerd requests a digest as a manifest, and then as a blob.
    negative: new NegativeAnswers(clock),
    clock,
    isOffline,
  });
  return { fills, reads, blobs };
}

function buildLists(
  options: MirrorOptions,
): Pick<MirrorParts, "tagLists" | "referrers"> {
  const { index, clock, isOffline } = options;
  const newRevalidation = <T>(): ListRevalidation<T> =>
    new ListRevalidation({ clock, isOffline, gate: newGate(options) });
  return {
    tagLists: new TagLists({ index, clock, revalidation: newRevalidation() }),
    referrers: new Referrers({ index, clock, revalidation: newRevalidation() }),
  };
}

/** One each for manifests, tags and referrers: a slow list must not make manifests stale. */
function newGate({ patienceMs }: MirrorOptions): StaleGate {
  return new StaleGate(patienceMs === undefined ? {} : { patienceMs });
}

function verifyAfterMsOf({ verifyAfterMs }: MirrorOptions): () => number {
  return verifyAfterMs ?? (() => Infinity);
}
