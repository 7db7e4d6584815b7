import { EventEmitter } from "node:events";
import type { EvictionConfig } from "../config/config.ts";
import { createRoomLimits } from "../retention/eviction-limits.ts";
import { Evictor } from "../retention/evictor.ts";
import { Room } from "../retention/room.ts";
import { HotManifests } from "../storage/hot-manifests.ts";
import { LeftPartials } from "../storage/local/blobs/left-partials.ts";
import { openCacheOrWait } from "../storage/local/late-cache.ts";
import type { OpenedCache } from "../storage/local/open-cache.ts";
import { readDiskSpace } from "../storage/local/root/disk-space.ts";
import { settleIntents } from "../storage/local/upkeep/settle-intents.ts";
import {
  trackBlobStore,
  type TrackedBlobStore,
} from "../storage/tracked-blob-store.ts";
import type { Foundation } from "./foundation.ts";

export interface BuiltStorage {
  readonly cache: OpenedCache;
  readonly blobs: TrackedBlobStore;
  readonly hot: HotManifests;
  readonly evictor: Evictor;
  readonly room: Room;
  /** Applies changed limits and checks them soon. */
  setEviction(eviction: EvictionConfig): void;
}

/**
 * Opens the storage and creates the eviction of its content, which starts when the caller says so.
 *
 * @throws StorageRootError if the root can't be used
 */
export async function buildStorage({
  config,
  clock,
  log,
  metrics,
}: Foundation): Promise<BuiltStorage> {
  const { root } = config.storage;
  const cache = await openCacheOrWait({
    root,
    clock,
    log,
    onAbsence: (absence) =>
      metrics.storageDegraded.set(absence === undefined ? 0 : 1),
  });
  let limits = createRoomLimits(config.eviction);
  const hot = new HotManifests();
  const events = new EventEmitter<{ published: [] }>();
  const blobs = trackBlobStore(cache.blobs, () => events.emit("published"));
  // While the root is away, another disk may be mounted at its path.
  const readSpace = () =>
    cache.absence === undefined
      ? readDiskSpace(root)
      : Promise.resolve(undefined);
  const evictor = new Evictor({
    index: cache.index,
    blobs,
    hot,
    clearLeftovers: async (partialsBytes) => {
      const { layout, fileSystem } = cache.scrubParts;
      const { index } = cache;
      const parts = { layout, fileSystem, index, blobs, clock, log };
      await new LeftPartials(parts).trim(partialsBytes);
      await settleIntents(parts);
    },
    get limits() {
      return limits;
    },
    readSpace,
    clock,
    log,
    metrics,
  });
  events.on("published", () => evictor.poke());
  return {
    cache,
    blobs,
    hot,
    evictor,
    room: new Room({ evictor, readSpace }),
    setEviction: (eviction) => {
      limits = createRoomLimits(eviction);
      evictor.poke();
    },
  };
}
