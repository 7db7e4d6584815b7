import type { Descriptor } from "../../src/oci/descriptor.ts";
import {
  createDigestHash,
  type Digest,
  type DigestAlgorithm,
  digestOf,
  digestSoFar,
} from "../../src/oci/digest.ts";
import {
  bufferSource,
  type ByteSource,
  readParts,
  seededBytes,
} from "./seeded-bytes.ts";

export type ImageFormat = "oci" | "docker";

const MEDIA_TYPES = {
  oci: {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
  },
  docker: {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  },
} as const;

/** The empty JSON object that artifacts use as their configuration. */
const EMPTY_MEDIA_TYPE = "application/vnd.oci.empty.v1+json";

export interface TestBlob extends Descriptor, ByteSource {
  /** Returns all bytes; a large seeded blob is generated at each call. */
  bytes(): Buffer;
}

export interface TestManifest extends Descriptor {
  readonly bytes: Buffer;
  /** Digest of the `subject`. */
  readonly subject: Digest | undefined;
  /** As in the referrers API: `artifactType`, or else the media type of the configuration. */
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

export interface TestImage {
  readonly manifest: TestManifest;
  readonly config: TestBlob;
  readonly layers: readonly TestBlob[];
  /** Configuration first, then the layers; a digest may occur twice. */
  readonly blobs: readonly TestBlob[];
  readonly platform: Platform;
}

export interface TestIndex {
  readonly manifest: TestManifest;
  readonly images: readonly TestImage[];
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

interface DescriptorJson {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/** Descriptor of a blob or a manifest. */
export function descriptorJson(of: Descriptor): DescriptorJson {
  return { mediaType: of.mediaType, digest: of.digest, size: of.sizeBytes };
}

function blobOf(
  source: ByteSource,
  mediaType: string,
  algorithm: DigestAlgorithm,
): TestBlob {
  let digest: Digest | undefined;
  return {
    mediaType,
    sizeBytes: source.sizeBytes,
    read: (offset, length) => source.read(offset, length),
    bytes: () => source.read(0, source.sizeBytes),
    get digest() {
      if (digest === undefined) {
        const hash = createDigestHash(algorithm);
        for (const part of readParts(source)) hash.update(part);
        digest = digestSoFar(algorithm, hash);
      }
      return digest;
    },
  };
}

export interface SeededBlobOptions {
  readonly mediaType?: string;
  readonly algorithm?: DigestAlgorithm;
}

/** A blob of seeded bytes, generated when read: 256 MiB use no memory. */
export function seededBlob(
  seed: string,
  sizeBytes: number,
  options: SeededBlobOptions = {},
): TestBlob {
  return blobOf(
    seededBytes(seed, sizeBytes),
    options.mediaType ?? "application/octet-stream",
    options.algorithm ?? "sha256",
  );
}

/** A blob of the given bytes; also for content that is not a layer. */
export function bytesBlob(
  bytes: Buffer | string,
  options: SeededBlobOptions = {},
): TestBlob {
  return blobOf(
    bufferSource(Buffer.from(bytes)),
    options.mediaType ?? "application/octet-stream",
    options.algorithm ?? "sha256",
  );
}

/** A manifest of any JSON text, for content that no builder here makes. */
export function manifestOf(
  content: Readonly<Record<string, unknown>> | string,
  mediaType: string,
  algorithm: DigestAlgorithm = "sha256",
): TestManifest {
  const text =
    typeof content === "string" ? content : JSON.stringify(content, null, 2);
  const bytes = Buffer.from(text);
  const named = typeof content === "string" ? {} : content;
  const subject = named["subject"] as DescriptorJson | undefined;
  const config = named["config"] as DescriptorJson | undefined;
  return {
    bytes,
    mediaType,
    sizeBytes: bytes.length,
    digest: digestOf(bytes, algorithm),
    subject: subject?.digest as Digest | undefined,
    artifactType:
      (named["artifactType"] as string | undefined) ?? config?.mediaType,
    annotations: named["annotations"] as Record<string, string> | undefined,
  };
}

export interface BuildImageOptions {
  /** Images with the same seed and options are the same bytes. */
  readonly seed: string;
  /** Sizes of the layers in bytes, or the layers; default: one of 1 000 bytes. */
  readonly layers?: readonly (number | TestBlob)[];
  readonly format?: ImageFormat;
  readonly platform?: Platform;
  readonly algorithm?: DigestAlgorithm;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly subject?: Descriptor;
}

/** An image as a registry sees it; its layers are random bytes, so no engine can unpack it. */
export function buildImage(options: BuildImageOptions): TestImage {
  const {
    seed,
    layers: wanted = [1000],
    format = "oci",
    platform = { os: "linux", architecture: "amd64" },
    algorithm = "sha256",
  } = options;
  const types = MEDIA_TYPES[format];
  const layers = wanted.map((layer, at) =>
    typeof layer === "number"
      ? seededBlob(`${seed}/layer/${at}`, layer, {
          mediaType: types.layer,
          algorithm,
        })
      : layer,
  );
  const config = bytesBlob(
    JSON.stringify({
      ...platform,
      author: seed,
      config: { Cmd: ["/bin/sh"] },
      rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.digest) },
    }),
    { mediaType: types.config, algorithm },
  );
  const manifest = manifestOf(
    {
      schemaVersion: 2,
      mediaType: types.manifest,
      config: descriptorJson(config),
      layers: layers.map(descriptorJson),
      ...(options.subject && { subject: descriptorJson(options.subject) }),
      ...(options.annotations && { annotations: options.annotations }),
    },
    types.manifest,
    algorithm,
  );
  return { manifest, config, layers, blobs: [config, ...layers], platform };
}

export interface BuildIndexOptions {
  readonly format?: ImageFormat;
  readonly algorithm?: DigestAlgorithm;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An image index (or, as `docker`, a manifest list) over images that exist already. */
export function buildIndex(
  images: readonly TestImage[],
  options: BuildIndexOptions = {},
): TestIndex {
  const mediaType = MEDIA_TYPES[options.format ?? "oci"].index;
  const manifest = manifestOf(
    {
      schemaVersion: 2,
      mediaType,
      manifests: images.map((image) => ({
        ...descriptorJson(image.manifest),
        platform: image.platform,
      })),
      ...(options.annotations && { annotations: options.annotations }),
    },
    mediaType,
    options.algorithm,
  );
  return { manifest, images };
}

export const AMD64: Platform = { os: "linux", architecture: "amd64" };
export const ARM64: Platform = {
  os: "linux",
  architecture: "arm64",
  variant: "v8",
};

export interface BuildMultiArchOptions extends BuildIndexOptions {
  readonly seed: string;
  /** Sizes of each image's layers. */
  readonly layers?: readonly number[];
  readonly platforms?: readonly Platform[];
}

/** An index with one image for each platform (default amd64 and arm64); they share no blob. */
export function buildMultiArch(options: BuildMultiArchOptions): TestIndex {
  const { seed, layers = [1000], platforms = [AMD64, ARM64] } = options;
  const images = platforms.map((platform) =>
    buildImage({
      seed: `${seed}/${platform.os}/${platform.architecture}`,
      layers,
      platform,
      format: options.format ?? "oci",
      algorithm: options.algorithm ?? "sha256",
    }),
  );
  return buildIndex(images, options);
}

export interface BuildArtifactOptions {
  readonly seed: string;
  readonly artifactType: string;
  readonly subject?: Descriptor;
  readonly sizeBytes?: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An OCI 1.1 artifact: a signature, an SBOM; with `subject` it is a referrer. */
export function buildArtifact(options: BuildArtifactOptions): TestImage {
  const config = bytesBlob("{}", { mediaType: EMPTY_MEDIA_TYPE });
  const layer = seededBlob(options.seed, options.sizeBytes ?? 100);
  const manifest = manifestOf(
    {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.oci.manifest,
      artifactType: options.artifactType,
      config: descriptorJson(config),
      layers: [descriptorJson(layer)],
      ...(options.subject && { subject: descriptorJson(options.subject) }),
      ...(options.annotations && { annotations: options.annotations }),
    },
    MEDIA_TYPES.oci.manifest,
  );
  return {
    manifest,
    config,
    layers: [layer],
    blobs: [config, layer],
    platform: { os: "unknown", architecture: "unknown" },
  };
}

/** The image index of the referrers API or of its fallback tag. */
export function buildReferrersIndex(
  referrers: readonly TestManifest[],
): TestManifest {
  return manifestOf(
    {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.oci.index,
      manifests: referrers.map((referrer) => ({
        ...descriptorJson(referrer),
        ...(referrer.artifactType && { artifactType: referrer.artifactType }),
        ...(referrer.annotations && { annotations: referrer.annotations }),
      })),
    },
    MEDIA_TYPES.oci.index,
  );
}
