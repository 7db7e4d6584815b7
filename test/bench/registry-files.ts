import { createHash } from "node:crypto";
import { closeSync, linkSync, mkdirSync, openSync, writeSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readParts, seededBytes } from "../support/seeded-bytes.ts";

/*
 * Writes the files of docker-registry without running it:
 *
 *   docker/registry/v2/blobs/sha256/<2 hex>/<64 hex>/data
 *   docker/registry/v2/repositories/<name>/_layers/sha256/<64 hex>/link
 *   docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/<64 hex>/link
 *   docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
 *   docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/index/sha256/<64 hex>/link
 */

/** docker-registry sends this type only to clients that name it in `Accept`. */
export const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar";

/** Repository of all content. */
export const REPOSITORY = "bench/image";

export interface StoredBlob {
  /** `sha256:…` */
  readonly digest: string;
  readonly sizeBytes: number;
  readonly file: string;
}

export interface StoredImage {
  readonly tag: string;
  readonly manifest: StoredBlob;
  readonly layers: readonly StoredBlob[];
}

/** Storage folder of a docker-registry, into which content is written directly. */
export class RegistryFiles {
  readonly root: string;
  readonly #repository: string;
  #temporaryCount = 0;

  constructor(root: string) {
    this.root = root;
    this.#repository = join(
      root,
      "docker/registry/v2/repositories",
      REPOSITORY,
    );
  }

  /** Writes a blob of seeded bytes; hundreds of MiB take less than a second and no memory. */
  async addBlob(seed: string, sizeBytes: number): Promise<StoredBlob> {
    return this.#add(
      readParts(seededBytes(seed, sizeBytes), 0, sizeBytes, 1 << 20),
    );
  }

  /** Writes an image whose layers are archives of one file each, and tags it. */
  async addImage(
    tag: string,
    layerCount: number,
    layerBytes: number,
  ): Promise<StoredImage> {
    const layers: StoredBlob[] = [];
    for (let layer = 0; layer < layerCount; layer++) {
      const content = seededBytes(`${tag}/${layer}`, layerBytes);
      layers.push(
        await this.#add(
          tarOfOneFile(`file-${layer}`, content.read(0, layerBytes)),
        ),
      );
    }
    const config = await this.#add([
      Buffer.from(
        JSON.stringify({
          architecture: process.arch === "arm64" ? "arm64" : "amd64",
          os: "linux",
          author: tag,
          config: { Cmd: ["/file-0"] },
          rootfs: { type: "layers", diff_ids: layers.map((l) => l.digest) },
        }),
      ),
    ]);
    const descriptor = (mediaType: string, blob: StoredBlob) => ({
      mediaType,
      size: blob.sizeBytes,
      digest: blob.digest,
    });
    const manifest = await this.#add([
      Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: MANIFEST_TYPE,
          config: descriptor(CONFIG_TYPE, config),
          layers: layers.map((layer) => descriptor(LAYER_TYPE, layer)),
        }),
      ),
    ]);
    const { digest } = manifest;
    const manifests = join(this.#repository, "_manifests");
    const at = digest.replace(":", "/");
    for (const link of [
      join("revisions", at, "link"),
      join("tags", tag, "current/link"),
      join("tags", tag, "index", at, "link"),
    ]) {
      await writeLink(join(manifests, link), digest);
    }
    return { tag, manifest, layers };
  }

  async #add(parts: Iterable<Buffer>): Promise<StoredBlob> {
    this.#temporaryCount += 1;
    const folder = join(this.root, "new");
    const temporary = join(folder, String(this.#temporaryCount));
    await mkdir(folder, { recursive: true });
    const hash = createHash("sha256");
    const fd = openSync(temporary, "w");
    let sizeBytes = 0;
    for (const part of parts) {
      hash.update(part);
      writeSync(fd, part);
      sizeBytes += part.length;
    }
    closeSync(fd);
    const hex = hash.digest("hex");
    const digest = `sha256:${hex}`;
    const file = join(
      this.root,
      "docker/registry/v2/blobs/sha256",
      hex.slice(0, 2),
      hex,
      "data",
    );
    await mkdir(dirname(file), { recursive: true });
    linkSync(temporary, file);
    await writeLink(
      join(this.#repository, "_layers/sha256", hex, "link"),
      digest,
    );
    return { digest, sizeBytes, file };
  }
}

/** Makes a registry's file available to a web server under the path of the registry API. */
export function publishFile(
  root: string,
  path: string,
  blob: StoredBlob,
): void {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  linkSync(blob.file, file);
}

export function blobPath({ digest }: Pick<StoredBlob, "digest">): string {
  return `/v2/${REPOSITORY}/blobs/${digest}`;
}

export function manifestPath(reference: string): string {
  return `/v2/${REPOSITORY}/manifests/${reference}`;
}

async function writeLink(path: string, digest: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, digest);
}

/** @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html (ustar) */
function tarOfOneFile(name: string, content: Buffer): Buffer[] {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write("0000755\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.write(`${content.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write("00000000000\0", 136);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\x0000", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512);
  return [header, content, padding, Buffer.alloc(1024)];
}
