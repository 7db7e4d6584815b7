import type { Writable } from "node:stream";
import {
  createStoppedStorage,
  openStoppedStorage,
} from "../../app/open-storage.ts";
import type { Config } from "../../config/config.ts";
import { Collection } from "../../hosted/collection.ts";
import { Retention } from "../../hosted/retention/retention.ts";
import { AuditedImages } from "../../images/audited-images.ts";
import {
  createImages,
  type ImageServices,
} from "../../images/create-images.ts";
import {
  type ImageReference,
  imageText,
  parseImageText,
} from "../../images/image-reference.ts";
import type { ImageList, ImageSummary } from "../../images/images.ts";
import { type TagTarget, tagText } from "../../images/tag-image.ts";
import { RegistryError } from "../../oci/errors.ts";
import { createRoomLimits } from "../../retention/eviction-limits.ts";
import { Evictor } from "../../retention/evictor.ts";
import { readRoomBounds } from "../../retention/room-bounds.ts";
import { amountOf } from "../../retention/room-limits.ts";
import { Room } from "../../retention/room.ts";
import { createRoutes } from "../../routing/routes.ts";
import { HotManifests } from "../../storage/hot-manifests.ts";
import { storedBytes } from "../../storage/metadata-index.ts";
import type { Storage } from "../../storage/storage.ts";
import { systemClock } from "../../telemetry/clock.ts";
import { unreachableText } from "../running-mirror.ts";
import { CommandAudit } from "../command-audit.ts";
import { Failed, type ImageBackend, PAGE } from "./image-backend.ts";

/**
 * Opens the storage root of a stopped mirror for the image commands. Changes of hosted repositories
 * send no notifications.
 *
 * @param stderr receives errors of audit records
 * @throws RootInUseError, Failed, StorageError, IndexError
 */
export async function openStoppedImages(
  config: Config,
  stderr: Writable,
): Promise<ImageBackend> {
  const { index, services, audit, close } = await openStoppedServices(
    config,
    stderr,
  );
  const { images, orders } = services;
  const audited = new AuditedImages(orders, SENDER);
  const read = async (ref: string): Promise<ImageReference> => {
    const image = await images.resolve(ref);
    if (image === undefined) throw new Failed(2, `${ref} is not a reference`);
    return image;
  };
  const readTag = async (ref: string): Promise<TagTarget> => {
    const { key, reference } = await read(ref);
    if (reference.kind === "tag") return { key, tag: reference.tag };
    throw new Failed(2, `got ${ref}; expected a tag`);
  };
  const change = async <T>(work: () => Promise<T>): Promise<T> => {
    // Opened before any change, so that no change is made that can't be recorded.
    await audit.open();
    return explained(work);
  };
  return {
    storedBytes: async () => storedBytes(await index.totals()),
    async list(pattern) {
      const found: ImageSummary[] = [];
      let last: string | undefined;
      do {
        const page: ImageList = await images.list({
          q: pattern,
          n: PAGE,
          last: last === undefined ? undefined : parseImageText(last),
        });
        found.push(...page.images);
        last = page.last;
      } while (last !== undefined);
      return found;
    },
    inspect: async (ref) => images.get(await read(ref)),
    setPinned: async (ref, isPinned) => {
      const image = await read(ref);
      return (await change(() => audited.setPinned(image, isPinned)))
        ? { ref: imageText(image), pinned: isPinned }
        : undefined;
    },
    remove: async (ref) => {
      const image = await read(ref);
      const freedBytes = await change(() => audited.remove(image));
      return freedBytes === undefined
        ? undefined
        : { ref: imageText(image), freedBytes };
    },
    evict: (request) => change(() => audited.evict(request)),
    refresh: () =>
      Promise.reject(
        new Failed(
          1,
          "no mirror is running, and a refresh needs one; start it with 'entrepot serve'",
        ),
      ),
    tag: async (source, target) => {
      const [image, tag] = [await read(source), await readTag(target)];
      const digest = await change(() => audited.tag(image, tag));
      return { source: imageText(image), target: tagText(tag), digest };
    },
    untag: async (ref) => {
      const tag = await readTag(ref);
      const digest = await change(() => audited.untag(tag));
      return digest && { ref: tagText(tag), digest };
    },
    collect: (isDryRun) => change(() => audited.collect({ isDryRun })),
    close,
  };
}

/** The source of the orders of commands. */
export const SENDER = {
  user: undefined,
  client: "command-line",
  userAgent: undefined,
  host: undefined,
  method: "COMMAND",
};

/** @throws Failed for an error that the operator can correct */
async function explained<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    const exitCode = error.status === 400 ? 2 : 1;
    throw new Failed(exitCode, error.detail ?? error.message);
  }
}

const LOG = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** No upload receives bytes while no mirror runs; those that continue later check the quota again. */
function noReservedBytes(): number {
  return 0;
}

/**
 * Opens the services of a stopped mirror's storage. Open the audit before a change.
 *
 * @param stderr receives errors of audit records
 * @throws RootInUseError, Failed, StorageError, IndexError
 */
export async function openStoppedServices(
  config: Config,
  stderr: Writable,
  {
    isCreated = false,
  }: {
    /** Whether the storage root is created if nothing was ever stored there. */
    readonly isCreated?: boolean;
  } = {},
) {
  const audit = new CommandAudit(config.audit?.file, stderr);
  const { root } = config.storage;
  const clock = systemClock;
  const open = isCreated ? createStoppedStorage : openStoppedStorage;
  const storage = await open(config.storage, { clock, log: LOG });
  if (storage === undefined) {
    throw new Failed(
      2,
      `${unreachableText(config.operator)}, and ${root} is not a storage root (no index.sqlite); start the mirror with 'entrepot serve', or check --config and storage.root`,
    );
  }
  const { index, blobs, upkeep } = storage;
  await upkeep.recovered();
  const space = openSpace(config, storage);
  const { evictor } = space;
  const registries = () => config.hosted;
  const retention = new Retention({
    index,
    registries,
    clock,
    log: LOG,
    audit,
    onEvent: () => undefined,
  });
  const parts = { index, blobs, evictor, clock, log: LOG };
  // No request waits for the transaction.
  const maxPreviewedBlobs = 100_000;
  const garbage = new Collection({ ...parts, retention, maxPreviewedBlobs });
  const services: ImageServices = createImages({
    ...parts,
    routes: createRoutes(
      config.upstreams,
      config.upstreamTemplates,
      config.hosted,
    ),
    registries,
    hasCredentials: (upstream) =>
      config.upstreams.some(
        ({ name, credentials }) => name === upstream && credentials.length > 0,
      ),
    hot: new HotManifests(),
    reservedBytes: noReservedBytes,
    events: () => undefined,
    garbage,
    audit,
    ...space,
    recovered: () => upkeep.recovered(),
  });
  const close = async (): Promise<void> => {
    await evictor.stop();
    await storage.close();
    await audit.close();
  };
  return { index, services, audit, close };
}

/** Creates the eviction of a stopped mirror's content; nothing is evicted unless room is needed. */
function openSpace(config: Config, { index, blobs, upkeep }: Storage) {
  const limits = createRoomLimits(config.eviction);
  const readSpace = () => upkeep.readSpace();
  const shared = { index, blobs, limits, readSpace };
  const evictor = new Evictor({ ...shared, clock: systemClock, log: LOG });
  return {
    evictor,
    room: new Room({
      evictor,
      readSpace,
      minFreeBytes: (space) => amountOf(limits.minFree, space, 0),
      isOutOfRoom: () => upkeep.isOutOfRoom,
    }),
    readBounds: () => readRoomBounds(shared),
  };
}
