import type { Writable } from "node:stream";
import { openStoppedStorage } from "../app/open-storage.ts";
import type { Config } from "../config/config.ts";
import { AuditedImages } from "../images/audited-images.ts";
import {
  type ImageReference,
  imageText,
  parseImageText,
} from "../images/image-reference.ts";
import { type ImageList, Images, type ImageSummary } from "../images/images.ts";
import { createRoomLimits } from "../retention/eviction-limits.ts";
import { Evictor } from "../retention/evictor.ts";
import { createRoutes } from "../routing/routes.ts";
import { storedBytes } from "../storage/metadata-index.ts";
import { type Audit, NO_AUDIT, openAudit } from "../telemetry/audit.ts";
import { systemClock } from "../telemetry/clock.ts";
import { Failed, type ImageBackend, PAGE } from "./image-backend.ts";

/**
 * Opens the storage root of a stopped mirror for the image commands.
 *
 * @param stderr receives errors of audit records
 * @throws RootInUseError, Failed, StorageError, IndexError
 */
export async function openStoppedImages(
  config: Config,
  stderr: Writable,
): Promise<ImageBackend> {
  const { storage, evictor, images } = await openImages(config);
  const { index } = storage;
  const audit = new CommandAudit(config.audit?.file, images, stderr);
  const read = async (ref: string): Promise<ImageReference> => {
    const image = await images.resolve(ref);
    if (image === undefined) throw new Failed(2, `${ref} is not a reference`);
    return image;
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
      const audited = await audit.open();
      return (await audited.setPinned(image, isPinned))
        ? { ref: imageText(image), pinned: isPinned }
        : undefined;
    },
    remove: async (ref) => {
      const image = await read(ref);
      const freedBytes = await (await audit.open()).remove(image);
      return freedBytes === undefined
        ? undefined
        : { ref: imageText(image), freedBytes };
    },
    evict: async (request) => (await audit.open()).evict(request),
    refresh: () =>
      Promise.reject(
        new Failed(
          1,
          "no mirror is running, and a refresh needs one; start it with 'entrepot serve'",
        ),
      ),
    close: async () => {
      await evictor.stop();
      await storage.close();
      await audit.close();
    },
  };
}

/** The images of a stopped mirror's storage, with all that has to be closed. */
async function openImages(config: Config) {
  const { root } = config.storage;
  const log = {
    info: () => undefined,
    warn: () => undefined,
    error: () => undefined,
  };
  const storage = await openStoppedStorage(config.storage, {
    clock: systemClock,
    log,
  });
  if (storage === undefined) {
    throw new Failed(
      2,
      `${root} is not a storage root (no index.sqlite); check storage.root`,
    );
  }
  const { index, blobs, upkeep } = storage;
  await upkeep.recovered();
  const evictor = new Evictor({
    index,
    blobs,
    limits: createRoomLimits(config.eviction),
    readSpace: () => upkeep.readSpace(),
    clock: systemClock,
    log,
  });
  const images = new Images({
    index,
    blobs,
    evictor,
    hasCredentials: (upstream) =>
      config.upstreams.some(
        ({ name, credentials }) => name === upstream && credentials.length > 0,
      ),
    routes: createRoutes(
      config.upstreams,
      config.upstreamTemplates,
      config.hosted,
    ),
  });
  return { storage, evictor, images };
}

/** Records changes that a command makes. Opened before any change: an unrecordable change is not made. */
class CommandAudit {
  readonly #file: string | undefined;
  readonly #images: Images;
  readonly #stderr: Writable;
  #audit: Audit = NO_AUDIT;

  constructor(file: string | undefined, images: Images, stderr: Writable) {
    this.#file = file;
    this.#images = images;
    this.#stderr = stderr;
  }

  /** @throws the system's error if the audit file can't be opened */
  async open(): Promise<AuditedImages> {
    if (this.#file !== undefined && this.#audit === NO_AUDIT) {
      this.#audit = await openAudit(
        this.#file,
        (error) => {
          this.#stderr.write(`entrepot: audit.file: ${String(error)}\n`);
        },
        2,
      );
    }
    return new AuditedImages(this.#images, this.#audit, "command-line");
  }

  close(): Promise<void> {
    return this.#audit.close();
  }
}
