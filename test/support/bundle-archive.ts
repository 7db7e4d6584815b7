import { packTar, type TarEntry } from "modern-tar";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import {
  descriptorJson,
  type TestBlob,
  type TestImage,
  type TestIndex,
  type TestManifest,
} from "./image-builder.ts";

/** A member of an archive. */
export interface TestMember {
  readonly name: string;
  readonly bytes: Buffer;
  /** Default: a file. */
  readonly type?: NonNullable<TarEntry["header"]["type"]>;
  readonly linkname?: string;
}

/** An entry of `index.json`. */
export interface TestEntry {
  readonly of: Descriptor;
  readonly annotations?: Readonly<Record<string, string>>;
}

export function layoutMember(): TestMember {
  return {
    name: "oci-layout",
    bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}'),
  };
}

export function indexMember(
  entries: readonly TestEntry[],
  annotations?: Readonly<Record<string, string>>,
): TestMember {
  const manifests = entries.map((entry) => ({
    ...descriptorJson(entry.of),
    ...(entry.annotations && { annotations: entry.annotations }),
  }));
  return {
    name: "index.json",
    bytes: Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        manifests,
        ...(annotations && { annotations }),
      }),
    ),
  };
}

export function blobMember(
  blob: Pick<TestManifest, "digest" | "bytes"> | TestBlob,
): TestMember {
  return {
    name: `blobs/${blob.digest.replace(":", "/")}`,
    bytes: "read" in blob ? blob.bytes() : blob.bytes,
  };
}

/** Every blob of images and indexes, each once. */
export function blobMembers(
  ...contents: readonly (TestImage | TestIndex)[]
): TestMember[] {
  const members = new Map<string, TestMember>();
  const add = (member: TestMember): void => {
    if (!members.has(member.name)) members.set(member.name, member);
  };
  for (const content of contents) {
    add(blobMember(content.manifest));
    const images = "images" in content ? content.images : [content];
    for (const { manifest, blobs } of images) {
      for (const each of [manifest, ...blobs]) add(blobMember(each));
    }
  }
  return [...members.values()];
}

/** A whole bundle: the layout, `index.json` with full names, and every blob. */
export function bundleMembers(
  images: Readonly<Record<string, TestImage | TestIndex>>,
): TestMember[] {
  const entries = Object.entries(images).map(([name, { manifest }]) => ({
    of: manifest,
    annotations: {
      "io.containerd.image.name": name,
      "org.opencontainers.image.ref.name": name,
    },
  }));
  return [
    layoutMember(),
    indexMember(entries),
    ...blobMembers(...Object.values(images)),
  ];
}

/** Writes a tar archive. */
export async function tarOf(members: readonly TestMember[]): Promise<Buffer> {
  const archive = await packTar(
    members.map(({ name, bytes, type = "file", linkname }) => ({
      header: {
        name,
        type,
        size: type === "file" ? bytes.length : 0,
        mtime: new Date(0),
        ...(linkname === undefined ? {} : { linkname }),
      },
      ...(type === "file" ? { body: new Uint8Array(bytes) } : {}),
    })),
  );
  return Buffer.from(archive);
}

/** Returns bytes in chunks, as a socket does. */
export async function* inChunks(
  bytes: Buffer,
  size = 10_000,
): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) {
    yield bytes.subarray(at, at + size);
  }
}
