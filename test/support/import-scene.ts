import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { HostedConfig } from "../../src/config/config.ts";
import { ManifestWrites } from "../../src/hosted/content/manifest-writes.ts";
import type { HostedEvent } from "../../src/hosted/hosted.ts";
import type {
  ImportOptions,
  ImportReport,
} from "../../src/images/bundles/bundle.ts";
import {
  importBundle,
  type ImportParts,
} from "../../src/images/bundles/import/import-bundle.ts";
import { parseImageText } from "../../src/images/image-reference.ts";
import { RegistryError } from "../../src/oci/errors.ts";
import type { RepositoryKey, Tag } from "../../src/oci/reference.ts";
import { Evictor } from "../../src/retention/evictor.ts";
import { readRoomBounds } from "../../src/retention/room-bounds.ts";
import { Room } from "../../src/retention/room.ts";
import { createRoutes } from "../../src/routing/routes.ts";
import { HotManifests } from "../../src/storage/hot-manifests.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import type { Storage } from "../../src/storage/storage.ts";
import type { AuditEvent } from "../../src/telemetry/audit.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { inChunks, tarOf, type TestMember } from "./bundle-archive.ts";
import { UPSTREAM_DEFAULTS } from "./upstream-defaults.ts";

const ignore = (): void => undefined;
export const LOG = { debug: ignore, info: ignore, warn: ignore, error: ignore };
const SENDER = {
  user: undefined,
  client: "127.0.0.1",
  userAgent: undefined,
  host: undefined,
  method: "POST",
};
const reservedBytes = (): number => 0;
const readSpace = (): Promise<undefined> => Promise.resolve(undefined);
const NO_OPTIONS: ImportOptions = {
  into: undefined,
  name: undefined,
  isPinned: false,
};

/** An opened storage that bundles are imported into. */
export interface ImportScene extends Pick<Storage, "index" | "blobs"> {
  readonly root: string;
  readonly events: HostedEvent[];
  readonly audited: AuditEvent[];
  readonly evictor: Evictor;
  readonly parts: ImportParts;
  /** Imports members, or the bytes of an archive. */
  import(
    content: readonly TestMember[] | Buffer,
    options?: Partial<ImportOptions>,
    parts?: Partial<ImportParts>,
  ): Promise<ImportReport>;
  /** Imports, and returns the detail of the refusal. */
  refusal(
    content: readonly TestMember[] | Buffer,
    options?: Partial<ImportOptions>,
    parts?: Partial<ImportParts>,
  ): Promise<string>;
  /** Names of all files below `blobs/`, and of partial files. */
  files(): Promise<string[]>;
  close(): Promise<void>;
}

export async function openImportScene(
  test: AfterTest,
  root: string,
  {
    maxBytes = Infinity,
    hosted,
  }: {
    readonly maxBytes?: number;
    readonly hosted: readonly HostedConfig[];
  },
): Promise<ImportScene> {
  const storage = await openLocalStorage({
    root,
    clock: systemClock,
    log: LOG,
  });
  let isClosed = false;
  const close = async (): Promise<void> => {
    if (isClosed) return;
    isClosed = true;
    await storage.close();
  };
  releaseAfter(test, close);
  const { index, blobs } = storage;
  const events: HostedEvent[] = [];
  const audited: AuditEvent[] = [];
  const limits = {
    maxSize: { bytes: maxBytes },
    minFree: { bytes: 0 },
    maxIdleMs: Infinity,
    isKept: () => false,
  };
  const evictor = new Evictor({
    index,
    blobs,
    limits,
    readSpace,
    clock: systemClock,
    log: LOG,
  });
  const writes = new ManifestWrites({
    store: blobs,
    index,
    hot: new HotManifests(),
    clock: systemClock,
    reservedBytes,
  });
  const parts: ImportParts = {
    index,
    blobs,
    evictor,
    clock: systemClock,
    putManifest: (repository, manifest) => writes.put(repository, manifest),
    events: (event) => void events.push(event),
    reservedBytes,
    routes: createRoutes(
      [
        {
          ...UPSTREAM_DEFAULTS,
          name: "docker.io",
          endpoints: [],
          isDefault: true,
          libraryPrefix: true,
        },
        { ...UPSTREAM_DEFAULTS, name: "quay.io", endpoints: [] },
      ],
      [],
      hosted,
    ),
    room: new Room({ evictor, readSpace }),
    readBounds: () => readRoomBounds({ index, limits, readSpace }),
    recovered: () => storage.upkeep.recovered(),
    audit: { record: (event) => void audited.push(event) },
  };
  const run: ImportScene["import"] = async (content, options, other) => {
    const bytes = Buffer.isBuffer(content) ? content : await tarOf(content);
    return importBundle(
      { ...parts, ...other },
      { bytes: inChunks(bytes), sizeBytes: bytes.length },
      { ...NO_OPTIONS, ...options },
      {
        signal: new AbortController().signal,
        report: ignore,
        sender: SENDER,
      },
    );
  };
  return {
    index,
    blobs,
    root,
    events,
    audited,
    evictor,
    parts,
    import: run,
    refusal: async (...args) => {
      try {
        await run(...args);
      } catch (error) {
        assert(error instanceof RegistryError, String(error));
        return error.detail ?? "";
      }
      return assert.fail("got an imported bundle; expected a refusal");
    },
    files: () => filesBelow(root),
    close,
  };
}

async function filesBelow(root: string): Promise<string[]> {
  const found: string[] = [];
  for (const folder of ["blobs/sha256", "blobs/sha512", "partial"]) {
    for (const name of await readdir(join(root, folder))) {
      if (name !== "boot-id") found.push(`${folder}/${name}`);
    }
  }
  return found.sort();
}

/** Parses `registry/repository:tag`. */
export function tagNamed(text: string): {
  readonly key: RepositoryKey;
  readonly tag: Tag;
} {
  const image = parseImageText(text);
  assert(image?.reference.kind === "tag", text);
  return { key: image.key, tag: image.reference.tag };
}
