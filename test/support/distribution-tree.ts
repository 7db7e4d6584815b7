import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import type { TestImage, TestIndex, TestManifest } from "./image-builder.ts";

/** The storage folder of a Distribution registry, written as its filesystem driver does. */
export class DistributionTree {
  /** The `rootdirectory`. */
  readonly root: string;

  constructor(root: string) {
    this.root = root;
    mkdirSync(this.path("blobs"), { recursive: true });
    mkdirSync(this.path("repositories"), { recursive: true });
  }

  path(below: string): string {
    return join(this.root, "docker/registry/v2", below);
  }

  blobPath({ digest }: Pick<Descriptor, "digest">): string {
    const [algorithm = "", hex = ""] = digest.split(":");
    return this.path(`blobs/${algorithm}/${hex.slice(0, 2)}/${hex}/data`);
  }

  write(path: string, content: string | Buffer): void {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    chmodSync(path, 0o644);
  }

  /** Writes the bytes of a blob and its link in the repository. */
  putBlob(
    repository: string,
    blob: Pick<Descriptor, "digest"> & { bytes(): Buffer },
  ): void {
    this.write(this.blobPath(blob), blob.bytes());
    this.link(repository, "_layers", blob);
  }

  putManifest(
    repository: string,
    manifest: TestManifest,
    ...tags: readonly string[]
  ): void {
    this.write(this.blobPath(manifest), manifest.bytes);
    this.link(repository, "_manifests/revisions", manifest);
    for (const tag of tags) this.tag(repository, tag, manifest);
  }

  putImage(
    repository: string,
    image: TestImage,
    ...tags: readonly string[]
  ): void {
    for (const blob of image.blobs) this.putBlob(repository, blob);
    this.putManifest(repository, image.manifest, ...tags);
  }

  putIndex(
    repository: string,
    index: TestIndex,
    ...tags: readonly string[]
  ): void {
    for (const image of index.images) this.putImage(repository, image);
    this.putManifest(repository, index.manifest, ...tags);
  }

  tag(
    repository: string,
    tag: string,
    { digest }: Pick<Descriptor, "digest">,
  ): void {
    const base = `repositories/${repository}/_manifests/tags/${tag}`;
    this.write(this.path(`${base}/current/link`), digest);
    const index = `${base}/index/${digest.replace(":", "/")}/link`;
    this.write(this.path(index), digest);
  }

  link(
    repository: string,
    list: "_layers" | "_manifests/revisions",
    { digest }: Pick<Descriptor, "digest">,
  ): void {
    this.write(this.linkPath(repository, list, { digest }), digest);
  }

  linkPath(
    repository: string,
    list: "_layers" | "_manifests/revisions",
    { digest }: Pick<Descriptor, "digest">,
  ): string {
    const place = digest.replace(":", "/");
    return this.path(`repositories/${repository}/${list}/${place}/link`);
  }

  /** Deletes a manifest as the registry's API does: its link, and the tags that point to it. */
  deleteManifest(
    repository: string,
    manifest: TestManifest,
    ...tags: readonly string[]
  ): void {
    rmSync(this.linkPath(repository, "_manifests/revisions", manifest));
    for (const tag of tags) {
      const path = `repositories/${repository}/_manifests/tags/${tag}`;
      rmSync(this.path(path), { recursive: true });
    }
  }
}

/** Describes every entry of a folder, so that two descriptions differ if anything was changed. */
export function describeFolder(root: string): readonly string[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .sort()
    .map((name) => {
      const path = join(root, name);
      const stats = lstatSync(path);
      const hash = stats.isFile()
        ? createHash("sha256").update(readFileSync(path)).digest("hex")
        : "";
      const { mode, uid, gid, size, ino, mtimeMs } = stats;
      return [
        name,
        mode,
        uid,
        gid,
        stats.isFile() ? size : "",
        ino,
        mtimeMs,
        hash,
      ].join(" ");
    });
}
