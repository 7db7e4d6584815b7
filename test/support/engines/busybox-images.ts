import { createHash } from "node:crypto";
import { chmod, copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { AfterTest } from "../after-test.ts";
import type { RealRegistry } from "../real-registry.ts";
import { runCommand } from "../run-command.ts";
import { seededBytes } from "../seeded-bytes.ts";
import { tempDir } from "../temp-dir.ts";
import { Buildah } from "./buildah.ts";
import { Dockerd } from "./dockerd.ts";

/** An image in the registry from which a container can be started. */
export interface PublishedImage {
  /** For example `library/bb`. */
  readonly repository: string;
  readonly tag: string;
  /** Digest of the manifest or index as it was pushed. */
  readonly digest: string;
  readonly mediaType: string;
  /** Number of blobs of one platform, including the configuration. */
  readonly blobCount: number;
  readonly layerMediaTypes: readonly string[];
}

export interface PublishedImages {
  /** Docker media types, one platform, created by `docker import`. */
  readonly docker: PublishedImage;
  /** An OCI index with two platforms; layers compressed with gzip. */
  readonly multiArch: PublishedImage;
  /** An OCI manifest; layers compressed with zstd. */
  readonly zstd: PublishedImage;
}

/** Command in every image; its output proves that every byte of the layer arrived. */
export const PAYLOAD_COMMAND = ["/bin/busybox", "sha256sum", "/payload.bin"];

const PAYLOAD = seededBytes("payload", 3_000_000);
export const PAYLOAD_SHA256 = createHash("sha256")
  .update(PAYLOAD.read(0, PAYLOAD.sizeBytes))
  .digest("hex");

/** The machine's architecture, and one that it cannot run. */
const ARCHITECTURES: readonly [string, string] =
  process.arch === "arm64" ? ["arm64", "amd64"] : ["amd64", "arm64"];

/** Builds images from the machine's static busybox alone, and pushes them. */
export async function publishBusyboxImages(
  test: AfterTest,
  registry: RealRegistry,
): Promise<PublishedImages> {
  const dir = await tempDir(test, "images-");
  const shell = join(dir, "shell");
  await mkdir(join(shell, "bin"), { recursive: true });
  await copyFile("/bin/busybox", join(shell, "bin/busybox"));
  await chmod(join(shell, "bin/busybox"), 0o755);
  await symlink("busybox", join(shell, "bin/sh"));
  const payload = join(dir, "payload.bin");
  await writeFile(payload, PAYLOAD.read(0, PAYLOAD.sizeBytes));

  await pushDocker(test, registry, shell, payload);
  await pushOci(test, registry, shell, payload);
  return {
    docker: await published(registry, "library/bb", "1"),
    multiArch: await published(registry, "library/multi", "1"),
    zstd: await published(registry, "library/zstd", "1"),
  };
}

async function pushDocker(
  test: AfterTest,
  registry: RealRegistry,
  shell: string,
  payload: string,
): Promise<void> {
  const dockerd = await Dockerd.start(test);
  const tar = `${shell}.tar`;
  await runCommand("tar", ["-C", shell, "-cf", tar, "."]);
  const folder = dirname(payload);
  await runCommand("tar", ["-C", folder, "-rf", tar, "payload.bin"]);
  const reference = `${registry.host}/library/bb:1`;
  await dockerd.docker("import", tar, reference);
  await dockerd.docker("push", "--quiet", reference);
}

async function pushOci(
  test: AfterTest,
  registry: RealRegistry,
  shell: string,
  payload: string,
): Promise<void> {
  const builder = await Buildah.start(test);
  // No argument in these lines contains a space.
  const buildah = async (line: string): Promise<string> =>
    builder.buildah(...line.split(" "));
  const images = `docker://${registry.host}/library`;
  await buildah("manifest create multi");
  for (const arch of ARCHITECTURES) {
    await buildah(`from --arch=${arch} --name=build-${arch} scratch`);
    await buildah(`add build-${arch} ${shell} /`);
    await buildah(`config --arch=${arch} build-${arch}`);
    await buildah(`commit --rm build-${arch} base-${arch}`);
    // A second layer on top of the first.
    await buildah(
      `from --arch=${arch} --pull-never --name=build-${arch} base-${arch}`,
    );
    await buildah(`add build-${arch} ${payload} /payload.bin`);
    await buildah(`commit --rm build-${arch} image-${arch}`);
    await buildah(`manifest add --arch=${arch} multi image-${arch}`);
  }
  const push = "push --tls-verify=false --format=oci";
  await buildah(`manifest ${push} --all multi ${images}/multi:1`);
  // Use a new layer: buildah does not compress a layer again that the registry already has.
  await buildah("from --name=build-zstd scratch");
  await buildah(`add build-zstd ${shell} /`);
  await buildah(`add build-zstd ${payload} /payload.bin`);
  await buildah("commit --rm build-zstd image-zstd");
  await buildah(
    `${push} --compression-format=zstd image-zstd ${images}/zstd:1`,
  );
}

/** Reads the properties of an image from the registry. */
async function published(
  registry: RealRegistry,
  repository: string,
  tag: string,
): Promise<PublishedImage> {
  const get = async (reference: string): Promise<Response> =>
    fetch(`${registry.origin}/v2/${repository}/manifests/${reference}`, {
      headers: {
        accept: [
          "application/vnd.oci.image.index.v1+json",
          "application/vnd.oci.image.manifest.v1+json",
          "application/vnd.docker.distribution.manifest.v2+json",
        ].join(", "),
      },
    });
  const response = await get(tag);
  const top = (await response.json()) as ManifestJson;
  const child = top.manifests?.find(
    (one) => one.platform.architecture === ARCHITECTURES[0],
  );
  const manifest =
    child === undefined
      ? top
      : ((await (await get(child.digest)).json()) as ManifestJson);
  return {
    repository,
    tag,
    digest: response.headers.get("docker-content-digest") ?? "",
    mediaType: response.headers.get("content-type") ?? "",
    blobCount: 1 + (manifest.layers?.length ?? 0),
    layerMediaTypes: manifest.layers?.map((layer) => layer.mediaType) ?? [],
  };
}

interface ManifestJson {
  readonly manifests?: readonly {
    readonly digest: string;
    readonly platform: { readonly architecture: string };
  }[];
  readonly layers?: readonly { readonly mediaType: string }[];
}
