import { createReadStream } from "node:fs";
import { open, readdir, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import type { ReadableStream } from "node:stream/web";
import { createGunzip, createZstdDecompress } from "node:zlib";
import {
  type BundleBase,
  INDEX_FILE,
  MANIFESTS_ANNOTATION,
} from "../../../images/bundles/bundle.ts";
import { type Digest, digestOf, parseDigest } from "../../../oci/digest.ts";
import { isObject } from "../../../oci/manifest-document.ts";
import { messageOf } from "../../../telemetry/error-record.ts";
import { Failed } from "../../images/image-backend.ts";

/** Of 20 000 images with their platforms. */
const MAX_INDEX_BYTES = 32 * 1024 * 1024;
const MAX_BLOBS = 1_000_000;
const BLOB = /^(?:\.\/)?blobs\/(sha256|sha512)\/([0-9a-f]+)$/;
const GZIP = Buffer.of(0x1f, 0x8b);
const ZSTD = Buffer.of(0x28, 0xb5, 0x2f, 0xfd);

/**
 * Reads what an earlier bundle holds: an archive, plain or compressed, a folder, or its `index.json` alone.
 *
 * @throws Failed
 */
export async function readBundleBase(
  name: string,
  cwd: string,
): Promise<BundleBase> {
  const path = resolve(cwd, name);
  try {
    const isFolder = (await stat(path)).isDirectory();
    const { index, blobs } = isFolder
      ? await readFolder(path)
      : await readFileBase(path);
    return { ...readIndex(index), blobs };
  } catch (error) {
    if (error instanceof Failed) throw error;
    throw new Failed(2, `--since: ${name}: ${messageOf(error)}`);
  }
}

interface BaseContent {
  readonly index: Buffer;
  readonly blobs: readonly Digest[];
}

async function readFolder(path: string): Promise<BaseContent> {
  const index = await readIndexFile(join(path, INDEX_FILE));
  const blobs: Digest[] = [];
  for (const algorithm of ["sha256", "sha512"]) {
    const folder = join(path, "blobs", algorithm);
    const names = await readdir(folder).catch(() => []);
    for (const hex of names) {
      const digest = parseDigest(`${algorithm}:${hex}`);
      if (digest !== undefined) blobs.push(digest);
    }
  }
  return { index, blobs };
}

async function readFileBase(path: string): Promise<BaseContent> {
  const start = Buffer.alloc(4);
  {
    await using file = await open(path);
    await file.read(start, 0, start.length, 0);
  }
  if (start.toString().trimStart().startsWith("{")) {
    return { index: await readIndexFile(path), blobs: [] };
  }
  const file = createReadStream(path, { highWaterMark: 1024 * 1024 });
  const plain = start.subarray(0, 2).equals(GZIP)
    ? file.compose(createGunzip())
    : start.equals(ZSTD)
      ? file.compose(createZstdDecompress())
      : file;
  return readArchive(plain);
}

async function readIndexFile(path: string): Promise<Buffer> {
  const { size } = await stat(path);
  checkIndexSize(size);
  return readFile(path);
}

async function readArchive(archive: Readable): Promise<BaseContent> {
  const { createTarDecoder } = await import("modern-tar");
  const { readable, writable } = createTarDecoder({ strict: true });
  const bytes = Readable.toWeb(archive) as ReadableStream<Uint8Array>;
  const read = bytes.pipeTo(writable);
  const blobs: Digest[] = [];
  let index: Buffer | undefined;
  const list = async (): Promise<void> => {
    for await (const { header, body } of readable) {
      if (header.name.replace(/^\.\//, "") === INDEX_FILE) {
        checkIndexSize(header.size);
        index = await buffer(body);
        continue;
      }
      await body.cancel();
      const [, algorithm, hex] = BLOB.exec(header.name) ?? [];
      const digest = parseDigest(`${algorithm}:${hex}`);
      if (digest === undefined) continue;
      if (blobs.length === MAX_BLOBS) {
        throw new Error(`got more than ${MAX_BLOBS} blobs; expected fewer`);
      }
      blobs.push(digest);
    }
  };
  await Promise.all([read, list()]);
  if (index === undefined) {
    throw new Error(`got no ${INDEX_FILE}; expected a bundle`);
  }
  return { index, blobs };
}

function checkIndexSize(sizeBytes: number): void {
  if (sizeBytes > MAX_INDEX_BYTES) {
    throw new Error(
      `got an ${INDEX_FILE} of ${sizeBytes} bytes; expected at most ${MAX_INDEX_BYTES}`,
    );
  }
}

function readIndex(bytes: Buffer): Omit<BundleBase, "blobs"> {
  const document: unknown = JSON.parse(bytes.toString());
  const list: unknown = isObject(document)
    ? Reflect.get(document, "manifests")
    : undefined;
  if (!Array.isArray(list)) {
    throw new Error(`got JSON without manifests; expected an ${INDEX_FILE}`);
  }
  const manifests = new Set<Digest>();
  for (const descriptor of list as readonly unknown[]) {
    if (!isObject(descriptor)) continue;
    const annotations: unknown = Reflect.get(descriptor, "annotations");
    const below: unknown = isObject(annotations)
      ? Reflect.get(annotations, MANIFESTS_ANNOTATION)
      : undefined;
    const texts = [
      Reflect.get(descriptor, "digest") as unknown,
      ...(typeof below === "string" ? below.split(" ") : []),
    ];
    for (const text of texts) {
      const digest = typeof text === "string" ? parseDigest(text) : undefined;
      if (digest !== undefined) manifests.add(digest);
    }
  }
  return { indexDigest: digestOf(bytes), manifests: [...manifests] };
}
