import type { Config } from "../config/config.ts";
import {
  readDescriptorLimit,
  readMemoryLimit,
  resolveUploadLimit,
} from "../config/descriptor-limit.ts";
import { StoredBlobs } from "../bodies/stored-blobs.ts";
import { auditEvents } from "../hosted/audit-events.ts";
import { createContent } from "../hosted/content/create-content.ts";
import type { EventSink } from "../hosted/hosted.ts";
import { Uploads } from "../hosted/uploads/uploads.ts";
import { HostedRoutes } from "../http/registry/hosted-routes.ts";
import { answerUpload } from "../http/registry/upload-routes.ts";
import { createPullPolicy } from "../mirror/pull-policy.ts";
import type { Digest } from "../oci/digest.ts";
import type { RepositoryKey } from "../oci/reference.ts";
import { buildHostedUpkeep, type HostedUpkeep } from "./build-hosted-upkeep.ts";
import type { BuiltMirror } from "./build-mirror.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { BuiltUpstreams } from "./build-upstreams.ts";
import type { Foundation } from "./foundation.ts";

/** How long an upload is kept after its registry was removed from the configuration. */
const ORPHAN_EXPIRY_MS = 24 * 3_600_000;

/** The parts that the services of hosted repositories are built from. */
export interface HostedParts {
  readonly foundation: Foundation;
  readonly storage: BuiltStorage;
  readonly mirror: BuiltMirror;
  readonly upstreams: BuiltUpstreams;
}

export interface BuiltHosted {
  /** Answers requests for hosted repositories. */
  readonly routes: HostedRoutes;
  /** The background work, and the part of it that operators start. */
  readonly upkeep: Pick<HostedUpkeep, "garbage" | "onEvent">;
  /** Returns the bytes of a registry's open uploads, which count towards its quota. */
  readonly reservedBytes: (registry: string) => number;
  readonly replaceNotifications: (endpoints: Config["notifications"]) => void;
  /** Starts the background work, once the storage has recovered. */
  start(): void;
  /** Ends the background work, after the last request. */
  stop(): Promise<void>;
}

/** Creates the services of hosted repositories. */
export async function buildHosted(parts: HostedParts): Promise<BuiltHosted> {
  const { foundation, storage, mirror, upstreams } = parts;
  const { clock, log, audit } = foundation;
  const { index, blobs: store } = storage.cache;
  const { reads } = mirror;
  const upkeep = buildHostedUpkeep(foundation, upstreams.routes, storage);
  const recordEvent = auditEvents(audit);
  const events: EventSink = (event) => {
    recordEvent(event);
    upkeep.onEvent(event);
  };
  const uploads = await buildUploads(parts, events);
  const content = createContent({
    store,
    index,
    hot: storage.hot,
    stored: new StoredBlobs({ store, index, reads, clock }),
    reads,
    reservedBytes: (registry) => uploads.reservedBytes(registry),
    room: storage.room.uploads,
    events,
    clock,
    log,
  });
  const { set } = upstreams;
  const uploadRoutes = {
    uploads,
    mayMirror: (key, digest) => mayMirror(set, key, digest),
    clock,
  } satisfies Parameters<typeof answerUpload>[0];
  return {
    routes: new HostedRoutes({
      content,
      events,
      answerUpload: (call, routed, target) =>
        answerUpload(uploadRoutes, call, routed, target),
    }),
    replaceNotifications: (endpoints) => upkeep.replaceNotifications(endpoints),
    upkeep,
    reservedBytes: (registry) => uploads.reservedBytes(registry),
    start: () => {
      uploads.start();
      upkeep.start();
    },
    stop: async () => {
      await uploads.stop();
      await upkeep.stop();
    },
  };
}

async function buildUploads(
  { foundation, storage, upstreams: { routes } }: HostedParts,
  onEvent: EventSink,
): Promise<Uploads> {
  const { clock, log, metrics, live, overrides } = foundation;
  const { cache, room } = storage;
  const processLimits = {
    descriptors: await readDescriptorLimit(),
    memoryBytes: readMemoryLimit(),
  };
  return new Uploads({
    blobs: cache.blobs,
    index: cache.index,
    clock,
    log,
    metrics,
    room: room.uploads,
    maxOpen: () =>
      resolveUploadLimit(live.config.limits?.uploads ?? 0, processLimits),
    expiryMs: (registry) =>
      routes.findHosted(registry)?.uploadExpiryMs ?? ORPHAN_EXPIRY_MS,
    onEvent,
    ...(overrides.uploadSchedule === undefined
      ? {}
      : { schedule: overrides.uploadSchedule }),
  });
}

/** Applies `allow` and `deny` of an upstream, as to a request for the blob. */
function mayMirror(
  { mirrored, routes }: BuiltUpstreams["set"],
  { upstream, repository }: RepositoryKey,
  digest: Digest,
): boolean {
  const reference = { kind: "digest", digest } as const;
  const used = mirrored.find(({ name }) => name === upstream);
  if (used !== undefined) return used.mayPull(repository, reference);
  // An upstream made from a template, not used since the start.
  const config = routes.findUpstream(upstream);
  return (
    config !== undefined && createPullPolicy(config)(repository, reference)
  );
}
