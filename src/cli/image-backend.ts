import type { Writable } from "node:stream";
import { Evictor } from "../retention/evictor.ts";
import { storedBytes } from "../storage/metadata-index.ts";
import { openStoppedStorage } from "../app/open-storage.ts";
import type { Config } from "../config/config.ts";
import type { MirrorStatus } from "../http/operator/api-status.ts";
import { createRoomLimits } from "../retention/eviction-limits.ts";
import { AuditedImages } from "../images/audited-images.ts";
import {
  parseImageReference,
  parseImageText,
} from "../images/image-reference.ts";
import {
  type EvictionReport,
  type ImageDetail,
  type ImageList,
  Images,
  type ImageSummary,
} from "../images/images.ts";
import { NOT_AMONG_UPSTREAMS } from "../images/refresh-image.ts";
import { createRoutes } from "../routing/routes.ts";
import { type Audit, NO_AUDIT, openAudit } from "../telemetry/audit.ts";
import { systemClock } from "../telemetry/clock.ts";
import {
  type AskMirror,
  findRunningMirror,
  problemText,
} from "./running-mirror.ts";

const PAGE = 1_000;

/** The operations of the image commands, on a running mirror or on its storage root. */
export interface ImageBackend {
  /** Bytes of all blobs in the cache. */
  storedBytes(): Promise<number>;
  list(pattern: string | undefined): Promise<readonly ImageSummary[]>;
  /** Undefined if the image is not cached; the same for the methods below. */
  inspect(ref: string): Promise<ImageDetail | undefined>;
  setPinned(ref: string, isPinned: boolean): Promise<true | undefined>;
  /** @returns the bytes that were freed */
  remove(ref: string): Promise<number | undefined>;
  evict(request: {
    readonly toBytes: number | undefined;
    readonly isDryRun: boolean;
  }): Promise<EvictionReport>;
  /** @throws Failed if no mirror runs */
  refresh(
    ref: string,
  ): Promise<
    { readonly digest: string; readonly changed: boolean } | undefined
  >;
  close(): Promise<void>;
}

/** A failure whose message is printed to the operator. */
export class Failed extends Error {
  readonly exitCode: 1 | 2;

  constructor(exitCode: 1 | 2, message: string) {
    super(message);
    this.name = "Failed";
    this.exitCode = exitCode;
  }
}

/**
 * Opens the running mirror if one answers, otherwise the storage root. Changes there are recorded in
 * `audit.file` as by the mirror.
 *
 * @param stderr receives errors of audit records
 * @throws RootInUseError if a process that does not answer holds the root; Failed, StorageError,
 *   IndexError
 */
export async function openImageBackend(
  config: Config,
  stderr: Writable,
): Promise<ImageBackend> {
  const ask = await findRunningMirror(config);
  return ask === undefined ? openRoot(config, stderr) : askMirror(ask);
}

function askMirror(ask: AskMirror): ImageBackend {
  const call = async <T>(
    method: Parameters<AskMirror>[0],
    path: string,
    body?: unknown,
  ): Promise<T | undefined> => {
    const answer = await ask(method, `/api/v1${path}`, body);
    if (answer.status === 404) {
      const detail = problemText(answer.body);
      if (detail === "offline") {
        throw new Failed(1, "the running mirror is offline");
      }
      if (detail.endsWith(NOT_AMONG_UPSTREAMS)) throw new Failed(1, detail);
      return undefined;
    }
    if (answer.status !== 200) {
      throw new Failed(
        1,
        `the running mirror answered ${answer.status}: ${problemText(answer.body)}`,
      );
    }
    return answer.body as T;
  };
  return {
    storedBytes: async () =>
      required(await call<MirrorStatus>("GET", "/status")).storage.bytes,
    async list(pattern) {
      const images: ImageSummary[] = [];
      let last: string | null | undefined;
      do {
        const query = new URLSearchParams({ n: String(PAGE) });
        if (pattern !== undefined) query.set("q", pattern);
        if (typeof last === "string") query.set("last", last);
        const page = required(
          await call<ImageList>("GET", `/images?${query.toString()}`),
        );
        images.push(...page.images);
        last = page.last;
      } while (typeof last === "string");
      return images;
    },
    inspect: (ref) => call("GET", `/images/${ref}`),
    setPinned: async (ref, isPinned) => {
      const method = isPinned ? "PUT" : "DELETE";
      const found = await call<object>(method, `/images/${ref}/pin`);
      return found === undefined ? undefined : true;
    },
    remove: async (ref) =>
      (await call<{ readonly freedBytes: number }>("DELETE", `/images/${ref}`))
        ?.freedBytes,
    evict: async ({ toBytes, isDryRun }) =>
      required(
        await call<EvictionReport>("POST", "/evict", {
          ...(toBytes === undefined ? {} : { toBytes }),
          dryRun: isDryRun,
        }),
      ),
    refresh: (ref) => call("POST", `/images/${ref}/refresh`),
    close: () => Promise.resolve(),
  };
}

function required<T>(found: T | undefined): T {
  if (found === undefined) {
    throw new Failed(1, "the running mirror has another version");
  }
  return found;
}

async function openRoot(
  config: Config,
  stderr: Writable,
): Promise<ImageBackend> {
  const { storage, evictor, images } = await openStoppedImages(config);
  const { index } = storage;
  const audit = new CommandAudit(config.audit?.file, images, stderr);
  const routes = createRoutes(config.upstreams, config.upstreamTemplates);
  const read = (ref: string) => {
    const image = parseImageReference(ref, routes);
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
    inspect: (ref) => images.get(read(ref)),
    setPinned: async (ref, isPinned) =>
      (await (await audit.open()).setPinned(read(ref), isPinned)) || undefined,
    remove: async (ref) => (await audit.open()).remove(read(ref)),
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
async function openStoppedImages(config: Config) {
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
