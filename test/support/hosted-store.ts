import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { CondemnedBlobs } from "../../src/retention/condemned-blobs.ts";
import { Evictor } from "../../src/retention/evictor.ts";
import type { RoomLimits } from "../../src/retention/room-limits.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/oci/media-type.ts";
import type { RepositoryKey } from "../../src/oci/reference.ts";
import type { ImmutableTags } from "../../src/storage/hosted-index.ts";
import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import { createFsBlobStore } from "../../src/storage/local/blobs/fs-blob-store.ts";
import { openSqliteIndex } from "../../src/storage/local/index/open-sqlite-index.ts";
import {
  diskLayout,
  layoutFolders,
} from "../../src/storage/local/root/disk-layout.ts";
import { nodeFileSystem } from "../../src/storage/local/root/file-system.ts";
import { trackBlobStore } from "../../src/storage/tracked-blob-store.ts";
import { createMetrics } from "../../src/telemetry/metrics.ts";
import { tag } from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { FakeClock } from "./fake-clock.ts";
import { ManualSchedule } from "./manual-schedule.ts";
import { tempDir } from "./temp-dir.ts";

export const UNLIMITED = {
  quota: { maxBytes: Infinity, reservedBytes: 0 },
  isImmutable: (() => false) as ImmutableTags,
};

/** A manifest to push. */
export interface PushedManifest {
  readonly tags?: readonly string[];
  readonly blobs?: readonly Digest[];
  readonly manifests?: readonly Digest[];
  readonly subject?: Digest;
}

/** A storage on disk with hosted and mirrored content, as the services write it. */
export class HostedStore {
  readonly clock = new FakeClock();
  readonly metrics = createMetrics("0");
  readonly schedule = new ManualSchedule();
  readonly warnings: string[] = [];
  readonly #test: AfterTest;
  readonly #layout: ReturnType<typeof diskLayout>;
  index: MetadataIndex;
  readonly blobs: ReturnType<typeof trackBlobStore>;
  readonly log = {
    debug: () => undefined,
    info: () => undefined,
    warn: (_fields: unknown, text?: string) => {
      this.warnings.push(`${text}`);
    },
  };

  private constructor(test: AfterTest, dir: string) {
    this.#test = test;
    this.#layout = diskLayout(dir);
    this.index = this.#openIndex();
    this.blobs = trackBlobStore(createFsBlobStore({ layout: this.#layout }));
    releaseAfter(test, async () => {
      await this.blobs.close();
      await this.index.close();
    });
  }

  static async open(test: AfterTest): Promise<HostedStore> {
    const dir = join(await tempDir(test), "data");
    for (const folder of layoutFolders(diskLayout(dir)))
      await nodeFileSystem.makeFolder(folder);
    return new HostedStore(test, dir);
  }

  /** Closes the index and opens it again, as a restart does. */
  async reopen(): Promise<void> {
    await this.index.close();
    this.index = this.#openIndex();
  }

  /** Creates an evictor, which is stopped at the end of the test. */
  evictor(limits: Partial<RoomLimits> = {}): Evictor {
    const evictor = new Evictor({
      index: this.index,
      blobs: this.blobs,
      limits: {
        maxSize: { bytes: Number.MAX_SAFE_INTEGER },
        minFree: { bytes: 0 },
        maxIdleMs: Infinity,
        isKept: () => false,
        ...limits,
      },
      readSpace: () => Promise.resolve(undefined),
      clock: this.clock,
      log: this.log,
      metrics: this.metrics,
      schedule: this.schedule.start,
    });
    releaseAfter(this.#test, () => evictor.stop());
    return evictor;
  }

  /** Uploads a blob of this size. */
  async upload(
    key: RepositoryKey,
    text: string,
    sizeBytes = 1_000,
  ): Promise<Digest> {
    const digest = await this.#publish(text, sizeBytes);
    const outcome = await this.index.recordHostedBlob(
      key,
      { digest, sizeBytes, storedAtMs: this.clock.nowMs() },
      UNLIMITED.quota,
    );
    assert.equal(outcome, "stored");
    return digest;
  }

  /** Stores an image of an upstream with one layer. */
  async mirror(key: RepositoryKey, name: string): Promise<Digest> {
    const layer = await this.#publish(`layer of ${name}`, 1_000);
    const manifest = await this.#publish(`manifest of ${name}`, 100);
    const storedAtMs = this.clock.nowMs();
    await this.index.recordBlob(key, {
      digest: manifest,
      sizeBytes: 100,
      storedAtMs,
      manifest: {
        mediaType: OCI_MANIFEST,
        children: [childOf(layer, "blob")],
        subject: undefined,
      },
    });
    await this.index.putTag(key, tag(name), manifest, storedAtMs);
    await this.index.recordBlob(key, {
      digest: layer,
      sizeBytes: 1_000,
      storedAtMs,
    });
    return layer;
  }

  /** Pushes a manifest, after its blobs. */
  async putManifest(
    key: RepositoryKey,
    text: string,
    { tags = [], blobs = [], manifests = [], subject }: PushedManifest = {},
  ): Promise<Digest> {
    const digest = await this.#publish(text, 100);
    const outcome = await this.index.putHostedManifest(
      key,
      {
        digest,
        sizeBytes: 100,
        storedAtMs: this.clock.nowMs(),
        mediaType: manifests.length > 0 ? OCI_INDEX : OCI_MANIFEST,
        children: [
          ...blobs.map((one) => childOf(one, "blob")),
          ...manifests.map((one) => childOf(one, "manifest")),
        ],
        subject,
        artifactType: undefined,
        annotations: undefined,
      },
      tags.map(tag),
      UNLIMITED,
    );
    assert.equal(outcome.kind, "stored");
    return digest;
  }

  /** Deletes a manifest. */
  async remove(key: RepositoryKey, digest: Digest): Promise<void> {
    const { kind } = await this.index.deleteHostedManifest(
      key,
      digest,
      UNLIMITED.isImmutable,
    );
    assert.equal(kind, "deleted");
  }

  /** Removes what is condemned now, as the evictor does. */
  async purge(): Promise<void> {
    await new CondemnedBlobs({
      index: this.index,
      blobs: this.blobs,
      log: this.log,
    }).purge(() => false);
  }

  /** Whether the bytes of a blob are on disk. */
  has(digest: Digest): boolean {
    return readdirSync(this.#layout.blobFolder("sha256")).includes(
      digest.slice("sha256:".length),
    );
  }

  /** Files of blobs and manifests. */
  files(): number {
    return readdirSync(this.#layout.blobFolder("sha256")).length;
  }

  #openIndex(): MetadataIndex {
    return openSqliteIndex({
      path: this.#layout.indexFile,
      clock: this.clock,
    }).index;
  }

  async #publish(text: string, sizeBytes: number): Promise<Digest> {
    const bytes = Buffer.alloc(sizeBytes, text);
    const digest = digestOf(bytes);
    await this.blobs.put(digest, bytes);
    return digest;
  }
}

function childOf(digest: Digest, role: "blob" | "manifest") {
  return {
    digest,
    sizeBytes: role === "blob" ? 1_000 : 100,
    mediaType:
      role === "blob" ? "application/vnd.oci.image.layer.v1.tar" : OCI_MANIFEST,
    role,
    isForeign: false,
  } as const;
}
