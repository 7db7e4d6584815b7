import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { HostedConfig } from "../../src/config/config.ts";
import type { HostedEvent, HostedRepository } from "../../src/hosted/hosted.ts";
import type { ChunkRange } from "../../src/hosted/uploads/receive-body.ts";
import {
  type BodyCut,
  BrokenUploadBody,
  type UploadBody,
} from "../../src/hosted/uploads/upload-body.ts";
import {
  type UploadRequest,
  Uploads,
  type UploadsOptions,
} from "../../src/hosted/uploads/uploads.ts";
import type { Digest } from "../../src/oci/digest.ts";
import {
  parseRepositoryName,
  type RepositoryKey,
} from "../../src/oci/reference.ts";
import type { BlobRow } from "../../src/storage/blob-index.ts";
import type { UploadRow } from "../../src/storage/hosted-index.ts";
import { createFsBlobStore } from "../../src/storage/local/blobs/fs-blob-store.ts";
import {
  diskLayout,
  layoutFolders,
} from "../../src/storage/local/root/disk-layout.ts";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../src/storage/local/root/file-system.ts";
import { IndexError } from "../../src/storage/metadata-index.ts";
import { trackBlobStore } from "../../src/storage/tracked-blob-store.ts";
import { createMetrics } from "../../src/telemetry/metrics.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { FakeClock } from "./fake-clock.ts";
import { hostedConfig } from "./hosted-config.ts";
import { ManualSchedule } from "./manual-schedule.ts";
import { tempDir } from "./temp-dir.ts";

/** A body whose chunks a test gives one by one. */
export class ScriptedBody implements UploadBody {
  readonly lengthBytes: number | undefined;
  progressedAtMs = 0;
  #chunks: Uint8Array[] = [];
  #hasEnded = false;
  #broken: BrokenUploadBody | undefined;
  #wake: (() => void) | undefined;
  readonly #awaited = Promise.withResolvers<void>();

  constructor(lengthBytes?: number) {
    this.lengthBytes = lengthBytes;
  }

  /** A body that has arrived completely. */
  static of(bytes: Uint8Array, isLengthKnown = true): ScriptedBody {
    const body = new ScriptedBody(isLengthKnown ? bytes.length : undefined);
    if (bytes.length > 0) body.give(bytes);
    return body.end();
  }

  /** Resolves when all given chunks were read and the next one is awaited. */
  get awaited(): Promise<void> {
    return this.#awaited.promise;
  }

  get hasLeft(): boolean {
    return this.#broken?.reason === "left";
  }

  give(bytes: Uint8Array): this {
    this.#chunks.push(bytes);
    this.#wake?.();
    return this;
  }

  end(): this {
    this.#hasEnded = true;
    this.#wake?.();
    return this;
  }

  cut(reason: BodyCut): void {
    this.#broken ??= new BrokenUploadBody(reason);
    this.#wake?.();
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#broken !== undefined) throw this.#broken;
      if (this.#hasEnded) return undefined;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#awaited.resolve();
      await promise;
    }
    return this.#chunks.splice(0);
  }
}

/** The part of the index that uploads use; each method can be made to fail. */
export class UploadIndex {
  readonly rows = new Map<Digest, BlobRow>();
  readonly links = new Map<string, Set<Digest>>();
  readonly uploads = new Map<string, UploadRow>();
  /** Names of methods that fail. */
  readonly failing = new Set<string>();
  usedBytes = 0;

  #answer<T>(method: string, make: () => T): Promise<T> {
    return this.failing.has(method)
      ? Promise.reject(new IndexError(`${method} failed`))
      : Promise.resolve(make());
  }

  readonly putUpload = (row: UploadRow) =>
    this.#answer("putUpload", () => void this.uploads.set(row.id, row));
  readonly getUpload = (id: string) =>
    this.#answer("getUpload", () => this.uploads.get(id));
  readonly dropUpload = (id: string) =>
    this.#answer("dropUpload", () => void this.uploads.delete(id));
  readonly listUploads = (limit: number, last: string | undefined) =>
    this.#answer("listUploads", () =>
      [...this.uploads.values()]
        .filter(({ id }) => last === undefined || id > last)
        .toSorted((a, b) => (a.id < b.id ? -1 : 1))
        .slice(0, limit),
    );
  readonly listHostedRegistries = () =>
    this.#answer("listHostedRegistries", () => [
      { registry: "local", bytes: this.usedBytes },
    ]);
  readonly beginHostedWrite = () =>
    this.#answer("beginHostedWrite", () => undefined);
  readonly getBlob = (digest: Digest) =>
    this.#answer("getBlob", () => this.rows.get(digest));
  readonly getLinkedBlob = (key: RepositoryKey, digest: Digest) =>
    this.#answer("getLinkedBlob", () =>
      this.links.get(keyText(key))?.has(digest)
        ? this.rows.get(digest)
        : undefined,
    );
  readonly listBlobRepositories = (digest: Digest, limit: number) =>
    this.#answer("listBlobRepositories", () =>
      [...this.links]
        .filter(([, digests]) => digests.has(digest))
        .map(([text]) => keyOf(text))
        .slice(0, limit),
    );
  readonly recordHostedBlob: UploadsOptions["index"]["recordHostedBlob"] = (
    key,
    { digest, sizeBytes, storedAtMs },
    quota,
  ) =>
    this.#answer("recordHostedBlob", () => {
      const total = this.usedBytes + quota.reservedBytes + sizeBytes;
      if (total > quota.maxBytes) return "over-quota";
      this.addBlob(key, digest, sizeBytes, storedAtMs);
      return "stored";
    });
  readonly mountHostedBlob: UploadsOptions["index"]["mountHostedBlob"] = (
    key,
    digest,
    from,
    atMs,
  ) =>
    this.#answer("mountHostedBlob", () => {
      const row = this.rows.get(digest);
      if (row === undefined || !this.links.get(keyText(from))?.has(digest)) {
        return "absent";
      }
      this.addBlob(key, digest, row.sizeBytes, atMs);
      return "stored";
    });

  addBlob(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number,
    storedAtMs = 0,
  ): void {
    const verifiedAtMs = storedAtMs;
    const mediaType = undefined;
    this.rows.set(digest, {
      digest,
      sizeBytes,
      mediaType,
      storedAtMs,
      verifiedAtMs,
    });
    const text = keyText(key);
    this.links.set(text, (this.links.get(text) ?? new Set()).add(digest));
  }
}

function keyText({ upstream, repository }: RepositoryKey): string {
  return `${upstream} ${repository}`;
}

function keyOf(text: string): RepositoryKey {
  const [upstream = "", name = ""] = text.split(" ");
  return repositoryKeyOf(upstream, name);
}

export function repositoryKeyOf(upstream: string, name: string): RepositoryKey {
  const repository = parseRepositoryName(name);
  if (repository === undefined) throw new Error(`got ${name}; expected a name`);
  return { upstream, repository };
}

export function hostedRepository(
  name: string,
  overrides: Partial<HostedConfig> = {},
): HostedRepository {
  const config = hostedConfig(overrides);
  return { key: repositoryKeyOf(config.name, name), config };
}

export const SENDER = {
  user: undefined,
  client: "127.0.0.1",
  userAgent: undefined,
  host: undefined,
  method: "PUT",
};

export function uploadRequest(
  repository: HostedRepository,
  body: UploadBody,
  range?: ChunkRange,
): UploadRequest {
  return { repository, sender: SENDER, body, range };
}

/** Uploads on a real file system, with a scripted index. */
export class UploadScene {
  readonly clock = new FakeClock();
  readonly index: UploadIndex;
  readonly events: HostedEvent[] = [];
  readonly metrics = createMetrics("test");
  readonly schedule = new ManualSchedule();
  readonly layout;
  readonly blobs;
  readonly uploads: Uploads;

  private constructor(
    root: string,
    index: UploadIndex,
    fileSystem: FileSystem,
    overrides: Partial<UploadsOptions>,
  ) {
    this.index = index;
    this.layout = diskLayout(root);
    const { layout, clock, metrics, schedule, events } = this;
    this.blobs = trackBlobStore(createFsBlobStore({ layout, fileSystem }));
    this.uploads = new Uploads({
      blobs: this.blobs,
      index,
      clock,
      metrics,
      log: { info: () => undefined, warn: () => undefined },
      maxOpen: () => 100,
      expiryMs: () => hostedConfig().uploadExpiryMs,
      schedule: schedule.start,
      onEvent: (event) => events.push(event),
      ...overrides,
    });
  }

  static async open(
    test: AfterTest,
    {
      root,
      index = new UploadIndex(),
      fileSystem = nodeFileSystem,
      ...overrides
    }: Partial<Omit<UploadsOptions, "index">> & {
      root?: string;
      index?: UploadIndex;
      fileSystem?: FileSystem;
    } = {},
  ): Promise<UploadScene> {
    const path = root ?? join(await tempDir(test), "data");
    for (const folder of layoutFolders(diskLayout(path))) {
      await mkdir(folder, { recursive: true });
    }
    const scene = new UploadScene(path, index, fileSystem, overrides);
    releaseAfter(test, () => scene.close());
    return scene;
  }

  /** Starts an upload. @returns its id */
  async begin(
    repository: HostedRepository,
    algorithm: "sha256" | "sha512" = "sha256",
  ): Promise<string> {
    const request = uploadRequest(repository, new ScriptedBody(0).end());
    const options = { digest: undefined, mount: undefined, algorithm };
    const started = await this.uploads.begin(request, options);
    if (started.kind !== "open") throw new Error("the upload was not started");
    return started.id;
  }

  append(
    repository: HostedRepository,
    id: string,
    bytes: Uint8Array,
    range?: ChunkRange,
  ) {
    const body = ScriptedBody.of(bytes);
    return this.uploads.append(id, uploadRequest(repository, body, range));
  }

  finish(
    repository: HostedRepository,
    id: string,
    digest: Digest,
    bytes: Uint8Array = Buffer.alloc(0),
    range?: ChunkRange,
  ) {
    const body = ScriptedBody.of(bytes);
    const request = uploadRequest(repository, body, range);
    return this.uploads.finish(id, request, digest);
  }

  /** Runs the upkeep that is due, and resolves when it has ended. */
  async sweep(): Promise<void> {
    const { schedule } = this;
    schedule.runNext();
    while (schedule.delaysMs.length === 0) await setImmediate();
  }

  /** Names in the folder of partials. */
  partials(): Promise<string[]> {
    return readdir(this.layout.partialFolder);
  }

  /** The bytes of a stored blob; undefined if it is not stored. */
  async stored(digest: Digest): Promise<Buffer | undefined> {
    const row = this.index.rows.get(digest);
    return row && this.blobs.read(digest, row.sizeBytes);
  }

  #closed: Promise<void> | undefined;

  /** Stops like a process that ends cleanly. */
  close(): Promise<void> {
    this.#closed ??= this.uploads.stop().then(() => this.blobs.close());
    return this.#closed;
  }
}
