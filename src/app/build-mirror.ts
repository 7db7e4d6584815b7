import {
  readDescriptorLimit,
  readMemoryLimit,
  resolveFillLimit,
} from "../config/descriptor-limit.ts";
import type { AccessControl } from "../http/client-auth/access-control.ts";
import { StoredReads } from "../bodies/stored-reads.ts";
import { createCatalog, type ListCatalog } from "../images/catalog.ts";
import { PinKeeper } from "../images/pin-keeper.ts";
import { createPurge, type PurgeImage } from "../images/purge-image.ts";
import { createMirror, type Mirror } from "../mirror/mirror.ts";
import { BlobVerifier } from "../storage/blob-verifier.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { BuiltUpstreams } from "./build-upstreams.ts";
import type { Foundation } from "./foundation.ts";
import { type Scrubbing, startScrubbing } from "./scrubbing.ts";

export interface BuiltMirror {
  readonly mirror: Mirror;
  readonly verifier: BlobVerifier;
  readonly scrubbing: Scrubbing;
  readonly pins: PinKeeper;
  /** Drops a cached image by the names that clients use. */
  readonly purgeImage: PurgeImage;
  readonly listCatalog: ListCatalog;
  /** The verification of reads, shared by mirrored and hosted content. */
  readonly reads: StoredReads;
}

/** Creates the mirror and the services that repair and manage what it stores. */
export async function buildMirror(
  foundation: Foundation,
  { set, routes }: BuiltUpstreams,
  { cache, hot, evictor, room }: BuiltStorage,
  access: Pick<AccessControl, "hasRules">,
): Promise<BuiltMirror> {
  const { live, overrides, clock, log, metrics, audit } = foundation;
  const { index, blobs } = cache;
  const processLimits = {
    descriptors: await readDescriptorLimit(),
    memoryBytes: readMemoryLimit(),
  };
  // The verifier drops blobs through the scrub, which needs the mirror, which needs the verifier.
  const { promise: started, resolve } = Promise.withResolvers<Scrubbing>();
  const verifier = new BlobVerifier({
    blobs,
    index,
    clock,
    drop: async (row, verdict) => (await started).drop(row, verdict),
    onVerified: (outcome) => metrics.readVerifications.inc({ outcome }),
  });
  const reads = new StoredReads({
    verifier,
    clock,
    verifyAfterMs: () => live.config.scrub.onReadMs,
  });
  const mirror = createMirror({
    upstreams: set.configured,
    templated: set.templated,
    mayBeTemplated: () => (live.config.upstreamTemplates ?? []).length > 0,
    blobs,
    room,
    index,
    hot,
    clock,
    log,
    metrics,
    audit,
    isOffline: () => live.config.offline,
    reads,
    verifyAfterMs: () => live.config.scrub.onReadMs,
    hasRules: () => access.hasRules,
    maxFills: () =>
      resolveFillLimit(live.config.limits?.fills ?? 0, processLimits),
    childrenSchedule: overrides.childrenSchedule,
    ...(overrides.patienceMs === undefined
      ? {}
      : { patienceMs: overrides.patienceMs }),
  });
  const scrubbing = startScrubbing(foundation, cache, mirror);
  resolve(scrubbing);
  return {
    mirror,
    verifier,
    scrubbing,
    pins: new PinKeeper({
      mirror,
      index,
      hasUpstream: (name) =>
        !live.config.offline && routes.findUpstream(name) !== undefined,
      log,
    }),
    purgeImage: createPurge(
      { remove: ({ key, reference }) => evictor.remove(key, reference) },
      index,
    ),
    listCatalog: createCatalog(index),
    reads,
  };
}
