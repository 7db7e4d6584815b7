import assert from "node:assert/strict";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { unpackTar } from "modern-tar";
import { digestOf } from "../../src/oci/digest.ts";
import {
  type ExportParts,
  openBundle,
} from "../../src/images/bundles/export/export-bundle.ts";
import type { ExportRequest } from "../../src/images/bundles/bundle.ts";
import { parseImageText } from "../../src/images/image-reference.ts";
import type { RepositoryKey, Tag } from "../../src/oci/reference.ts";
import { createRoutes } from "../../src/routing/routes.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { tempDir } from "./temp-dir.ts";

/** A descriptor of `index.json`. */
export interface BundleDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  /** Absent: of a referrer. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A bundle that was read whole. */
export interface ReadBundle {
  readonly bytes: Buffer;
  /** The paths of its members, in their order. */
  readonly paths: readonly string[];
  readonly members: ReadonlyMap<string, Buffer>;
  readonly index: {
    readonly manifests: readonly BundleDescriptor[];
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

/** Reads an archive, and asserts that each blob has its digest. */
export async function readBundle(archive: Readable): Promise<ReadBundle> {
  const bytes = await buffer(archive);
  const members = new Map<string, Buffer>();
  const paths: string[] = [];
  for (const { header, data } of await unpackTar(bytes, { strict: true })) {
    const { name, mode, uid, gid, mtime, type, uname, gname } = header;
    assert.deepEqual(
      [mode, uid, gid, mtime?.getTime(), type, uname, gname],
      [0o644, 0, 0, 0, "file", "", ""],
    );
    assert(!members.has(name), `${name} is in the archive once`);
    paths.push(name);
    const content = Buffer.from(data ?? []);
    members.set(name, content);
    const [, algorithm, hex] =
      /^blobs\/(sha256|sha512)\/(.*)$/.exec(name) ?? [];
    if (algorithm === undefined) continue;
    assert(algorithm === "sha256" || algorithm === "sha512");
    assert.equal(digestOf(content, algorithm), `${algorithm}:${hex}`);
  }
  const text = members.get("index.json")?.toString() ?? "";
  const index = JSON.parse(text) as ReadBundle["index"];
  return { bytes, paths, members, index };
}

/** Returns the digests of the blobs in a bundle. */
export function blobsOf({ paths }: Pick<ReadBundle, "paths">): string[] {
  return paths
    .filter((path) => path.startsWith("blobs/"))
    .map((path) => path.slice("blobs/".length).replace("/", ":"));
}

const ignore = (): void => undefined;

/** A storage from which a test exports; `local` is its hosted registry. */
export interface ExportScene extends Pick<Storage, "index" | "blobs"> {
  readonly parts: ExportParts;
  readonly open: (
    request: Partial<ExportRequest>,
    signal?: AbortSignal,
  ) => ReturnType<typeof openBundle>;
  readonly read: (request: Partial<ExportRequest>) => Promise<ReadBundle>;
}

export async function exportScene(test: AfterTest): Promise<ExportScene> {
  const storage = await openLocalStorage({
    root: await tempDir(test),
    clock: systemClock,
    log: { info: ignore, warn: ignore, error: ignore },
  });
  releaseAfter(test, () => storage.close());
  await storage.upkeep.recovered();
  const { index, blobs } = storage;
  const parts: ExportParts = {
    index,
    blobs,
    images: { resolve: (text) => Promise.resolve(parseImageText(text)) },
    hosted: { isHosted: (registry) => Promise.resolve(registry === "local") },
    routes: createRoutes([], [], []),
    sharesBlobs: (registry) => registry === "shared.example",
  };
  const open: ExportScene["open"] = (
    request,
    signal = new AbortController().signal,
  ) =>
    openBundle(
      parts,
      {
        refs: [],
        lists: [],
        platforms: [],
        withReferrers: false,
        since: undefined,
        ...request,
      },
      { signal },
    );
  return {
    index,
    blobs,
    parts,
    open,
    read: async (request) => readBundle((await open(request)).archive),
  };
}

/** Returns a repository by its name with its registry. */
export function repository(name: string): RepositoryKey {
  const named = parseImageText(`${name}:any`);
  assert(named !== undefined, name);
  return named.key;
}

export function tag(text: string): Tag {
  const named = parseImageText(`a/b:${text}`);
  assert(named?.reference.kind === "tag", text);
  return named.reference.tag;
}
