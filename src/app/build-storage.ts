import { EventEmitter } from "node:events";
import type { EvictionConfig } from "../config/config.ts";
import { createRoomLimits } from "../retention/eviction-limits.ts";
import { Evictor } from "../retention/evictor.ts";
import { readRoomBounds, type RoomBounds } from "../retention/room-bounds.ts";
import { Room } from "../retention/room.ts";
import { amountOf } from "../retention/room-limits.ts";
import { HotManifests } from "../storage/hot-manifests.ts";
import type { Storage } from "../storage/storage.ts";
import type { Foundation } from "./foundation.ts";
import { openStorage } from "./open-storage.ts";

export interface BuiltStorage {
  readonly cache: Storage;
  readonly hot: HotManifests;
  readonly evictor: Evictor;
  readonly room: Room;
  /** Returns what is stored, and what may be stored at most. */
  readBounds(): Promise<RoomBounds>;
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
  const events = new EventEmitter<{ published: [] }>();
  const cache = await openStorage(config.storage, {
    clock,
    log,
    onAbsence: (absence) =>
      metrics.storageDegraded.set(absence === undefined ? 0 : 1),
    onPublished: () => events.emit("published"),
  });
  let limits = createRoomLimits(config.eviction);
  const hot = new HotManifests();
  const { index, blobs, upkeep } = cache;
  const readSpace = () => upkeep.readSpace();
  const evictor = new Evictor({
    index,
    blobs,
    hot,
    clearLeftovers: (partialsBytes) => upkeep.clearLeftovers(partialsBytes),
    get limits() {
      return limits;
    },
    readSpace,
    clock,
    log,
    metrics,
  });
  events.on("published", () => evictor.notifyStored());
  return {
    cache,
    hot,
    evictor,
    room: new Room({
      evictor,
      readSpace,
      minFreeBytes: (space) => amountOf(limits.minFree, space, 0),
      isOutOfRoom: () => upkeep.isOutOfRoom,
    }),
    readBounds: () => readRoomBounds({ index, limits, readSpace }),
    setEviction: (eviction) => {
      limits = createRoomLimits(eviction);
      evictor.notifyStored();
    },
  };
}
