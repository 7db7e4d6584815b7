import { createImages, type ImageServices } from "../images/create-images.ts";
import { Wishes } from "../images/wishes.ts";
import type { BuiltHosted } from "./build-hosted.ts";
import type { BuiltStorage } from "./build-storage.ts";
import type { BuiltUpstreams } from "./build-upstreams.ts";
import type { Foundation } from "./foundation.ts";

export interface BuiltImages extends ImageServices {
  readonly wishes: Wishes;
}

/** Creates the services through which operators list and change images. */
export function buildImages({
  foundation: { live, clock, audit, log },
  upstreams: { set, routes },
  storage,
  hosted,
}: {
  readonly foundation: Foundation;
  readonly upstreams: BuiltUpstreams;
  readonly storage: BuiltStorage;
  readonly hosted: BuiltHosted;
}): BuiltImages {
  const { cache, hot, evictor, room } = storage;
  const { index } = cache;
  const services = createImages({
    index,
    blobs: cache.blobs,
    evictor,
    clock,
    routes,
    registries: () => live.config.hosted,
    hasCredentials: (name) =>
      set.mirrored.find((upstream) => upstream.name === name)?.client
        .hasCredentials ?? false,
    hot,
    reservedBytes: (registry) => hosted.reservedBytes(registry),
    events: hosted.upkeep.onEvent,
    garbage: hosted.upkeep.garbage,
    audit,
    room,
    readBounds: () => storage.readBounds(),
    recovered: () => cache.upkeep.recovered(),
  });
  return { ...services, wishes: new Wishes({ index, clock, log }) };
}
