import { createReadStream } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { buffer } from "node:stream/consumers";
import {
  type BaseContent,
  type BaseManifest,
  type BundleBase,
  IMAGE_NAME_ANNOTATION,
  INDEX_FILE,
  MANIFESTS_ANNOTATION,
} from "../../../images/bundles/bundle.ts";
import { blobPath } from "../../../images/bundles/bundle-index.ts";
import { baseContent } from "../../../images/bundles/export/export-base.ts";
import { type Digest, digestOf, parseDigest } from "../../../oci/digest.ts";
import { isObject } from "../../../oci/manifest-document.ts";
import { MAX_MANIFEST_BYTES, parseManifest } from "../../../oci/manifest.ts";
import { RegistryError } from "../../../oci/errors.ts";
import { messageOf } from "../../../telemetry/error-record.ts";
import { Failed } from "../../images/image-backend.ts";
import { statBundle } from "../import/bundle-source.ts";

/** Fewer calls of the system than with the default. */
const READ_BYTES = 1024 * 1024;

/**
 * Reads what an earlier bundle holds: an archive, plain or compressed, a folder, or its `index.json` alone.
 *
 * @throws Failed; the signal's reason
 */
export async function readBundleBase(
  name: string,
  cwd: string,
  signal: AbortSignal,
): Promise<BundleBase> {
  const path = resolve(cwd, name);
  const found = await statBundle(path, `--since: ${name}`);
  try {
    const base = found.isDirectory()
      ? await readFolder(path)
      : await readArchiveOrIndex(path, signal);
    if (base.manifests.every(({ registry }) => registry === undefined)) {
      throw new Error(
        "got no image with its full name; expected a bundle of 'entrepot export'",
      );
    }
    return base;
  } catch (error) {
    signal.throwIfAborted();
    const detail = error instanceof RegistryError ? error.detail : undefined;
    throw new Failed(2, `--since: ${name}: ${detail ?? messageOf(error)}`);
  }
}

async function readFolder(path: string): Promise<BundleBase> {
  const base = await readIndexFile(join(path, INDEX_FILE));
  const manifests: BaseManifest[] = [];
  for (const manifest of base.manifests) {
    const file = join(path, blobPath(manifest.digest));
    const found = await stat(file).catch(() => undefined);
    const isRead = found?.isFile() === true && found.size <= MAX_MANIFEST_BYTES;
    const content = isRead ? readContent(await readFile(file)) : undefined;
    manifests.push({ ...manifest, content });
  }
  return { ...base, manifests };
}

async function readArchiveOrIndex(
  path: string,
  signal: AbortSignal,
): Promise<BundleBase> {
  const start = Buffer.alloc(4);
  {
    await using file = await open(path);
    await file.read(start, 0, start.length, 0);
  }
  return start.toString().trimStart().startsWith("{")
    ? readIndexFile(path)
    : readArchiveFile(path, signal);
}

async function readIndexFile(path: string): Promise<BundleBase> {
  checkIndexSize((await stat(path)).size);
  return readIndex(await readFile(path));
}

/** Reads `index.json`, and the manifests that follow it. */
async function readArchiveFile(
  path: string,
  signal: AbortSignal,
): Promise<BundleBase> {
  const { readArchive } =
    await import("../../../images/bundles/import/read-archive.ts");
  const file = createReadStream(path, { highWaterMark: READ_BYTES, signal });
  let base: BundleBase | undefined;
  const wanted = new Set<Digest>();
  const contents = new Map<Digest, BaseContent | undefined>();
  for await (const { meaning, sizeBytes, body } of readArchive(file)) {
    if (meaning.kind === "index") {
      checkIndexSize(sizeBytes);
      base = readIndex(await buffer(body));
      for (const { digest } of base.manifests) wanted.add(digest);
    } else if (
      meaning.kind === "blob" &&
      wanted.has(meaning.digest) &&
      sizeBytes <= MAX_MANIFEST_BYTES
    ) {
      contents.set(meaning.digest, readContent(await buffer(body)));
    } else for await (const _ of body);
  }
  if (base === undefined) {
    throw new Error(`got no ${INDEX_FILE}; expected a bundle`);
  }
  const manifests = base.manifests.map((manifest) => ({
    ...manifest,
    content: contents.get(manifest.digest),
  }));
  return { ...base, manifests };
}

function readContent(bytes: Buffer): BaseContent | undefined {
  const parsed = parseManifest(bytes, undefined);
  return parsed.ok ? baseContent(parsed) : undefined;
}

function checkIndexSize(sizeBytes: number): void {
  if (sizeBytes > MAX_MANIFEST_BYTES) {
    throw new Error(
      `got an ${INDEX_FILE} of ${sizeBytes} bytes; expected at most ${MAX_MANIFEST_BYTES}`,
    );
  }
}

function readIndex(bytes: Buffer): BundleBase {
  const document: unknown = JSON.parse(bytes.toString());
  const list: unknown = isObject(document)
    ? Reflect.get(document, "manifests")
    : undefined;
  if (!Array.isArray(list)) {
    throw new Error(`got JSON without manifests; expected an ${INDEX_FILE}`);
  }
  const manifests = (list as readonly unknown[]).flatMap(readEntry);
  return { indexDigest: digestOf(bytes), manifests };
}

/** Returns the manifests of one image. */
function readEntry(entry: unknown): BaseManifest[] {
  if (!isObject(entry)) return [];
  const annotations: unknown = Reflect.get(entry, "annotations");
  const text = (key: string): string => {
    const value: unknown = isObject(annotations)
      ? Reflect.get(annotations, key)
      : undefined;
    return typeof value === "string" ? value : "";
  };
  const [, registry] = /^([^/]+)\//.exec(text(IMAGE_NAME_ANNOTATION)) ?? [];
  return [
    Reflect.get(entry, "digest") as unknown,
    ...text(MANIFESTS_ANNOTATION).split(" "),
  ]
    .map((value) =>
      typeof value === "string" ? parseDigest(value) : undefined,
    )
    .filter((digest): digest is Digest => digest !== undefined)
    .map((digest) => ({ digest, registry, content: undefined }));
}
