import type { ChildDescriptor } from "../../../oci/descriptor.ts";
import { type Digest, digestAlgorithm, digestOf } from "../../../oci/digest.ts";
import {
  MAX_MANIFEST_BYTES,
  parseManifest,
  type ParsedManifest,
} from "../../../oci/manifest.ts";
import type { BlobLinks } from "../../../storage/blob-index.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import type { BundleEntry, BundleIndex } from "./bundle-index.ts";
import { refuseBundle } from "./bundle-refusal.ts";
import type { ReceivedBlobs } from "./received-blobs.ts";

export interface BundleGraphParts {
  readonly blobs: Pick<BlobStore, "read">;
  readonly index: Pick<BlobLinks, "getUpstreamBlob">;
  /** Default {@link MAX_PARTS}. */
  readonly maxParts?: number | undefined;
}

/** A manifest of the bundle, or of its base. */
export interface GraphManifest {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly mediaType: string;
  readonly children: readonly ChildDescriptor[];
  readonly subject: Digest | undefined;
}

/** Everything that a repository needs of one image. */
export interface ImageGraph {
  /** Children before their parents; the image's own manifest is the last. */
  readonly manifests: readonly GraphManifest[];
  /** Sizes of the blobs, configs among them. */
  readonly blobs: ReadonlyMap<Digest, number>;
  /** Manifests that an index names and that are not there. */
  readonly absent: readonly Digest[];
}

/** Manifests and blobs of one bundle, counted for each image; also those of all manifests that were read. */
const MAX_PARTS = 1_000_000;

/** Reads the manifests of a bundle, whose blobs are all received. */
export class BundleGraph {
  readonly #parts: BundleGraphParts;
  readonly #received: ReceivedBlobs;
  readonly #index: BundleIndex;
  readonly #manifests = new Map<string, GraphManifest>();
  /** Parts of images, with every image that shares them. */
  #partCount = 0;
  /** Manifests that were read, and what they name: they stay in memory. */
  #readCount = 0;

  constructor(
    parts: BundleGraphParts,
    received: ReceivedBlobs,
    index: BundleIndex,
  ) {
    this.#parts = parts;
    this.#received = received;
    this.#index = index;
  }

  /**
   * Returns a manifest of the bundle itself.
   *
   * @param mediaType of its descriptor
   * @returns undefined if the bundle does not have it
   * @throws RegistryError if it is not a manifest
   */
  async readManifest(
    digest: Digest,
    mediaType: string | undefined,
  ): Promise<GraphManifest | undefined> {
    const sizeBytes = this.#received.sizeOf(digest);
    return sizeBytes === undefined
      ? undefined
      : this.#read(digest, sizeBytes, mediaType);
  }

  /**
   * Collects the parts of an image. Those that the bundle leaves out must be linked in the same
   * registry, if it has a base. An index may lack manifests: those that its entry does not list as
   * held, or some of them if the entry has no such list.
   *
   * @param registry where the image will be stored
   * @throws RegistryError if parts are missing
   */
  async collect(
    { digest: root, mediaType, held }: BundleEntry,
    registry: string,
  ): Promise<ImageGraph> {
    const manifests: GraphManifest[] = [];
    const blobs = new Map<Digest, number>();
    const absent: Digest[] = [];
    const seen = new Set<Digest>();
    const top = await this.#find(root, mediaType, registry);
    if (top === undefined) throw this.#missing(root, root);
    // A manifest is on the stack twice: to be read, and after its children to be listed.
    const stack: { readonly node: GraphManifest; readonly isDone: boolean }[] =
      [{ node: top, isDone: false }];
    for (;;) {
      const next = stack.pop();
      if (next === undefined) return { manifests, blobs, absent };
      const { node, isDone } = next;
      if (isDone) {
        manifests.push(node);
        continue;
      }
      if (seen.has(node.digest)) continue;
      seen.add(node.digest);
      this.#partCount = this.#count(this.#partCount, 1);
      stack.push({ node, isDone: true });
      let found = 0;
      const missing: Digest[] = [];
      for (const child of node.children) {
        this.#partCount = this.#count(this.#partCount, 1);
        const { digest, role, isForeign } = child;
        if (role === "manifest") {
          const isHeld = held?.has(digest);
          const below =
            isHeld === false && this.#received.sizeOf(digest) === undefined
              ? undefined
              : await this.#find(digest, child.mediaType, registry);
          if (below !== undefined) {
            found += 1;
            stack.push({ node: below, isDone: false });
          } else if (isHeld === true) throw this.#missing(root, digest);
          else missing.push(digest);
        } else if (!blobs.has(digest) && !isForeign) {
          const sizeBytes = await this.#sizeOf(digest, registry);
          if (sizeBytes === undefined) throw this.#missing(root, digest);
          blobs.set(digest, sizeBytes);
        } else if (isForeign && !blobs.has(digest)) {
          const sizeBytes = this.#received.sizeOf(digest);
          if (sizeBytes !== undefined) blobs.set(digest, sizeBytes);
        }
      }
      const [first] = missing;
      if (first !== undefined && found === 0) throw this.#missing(root, first);
      absent.push(...missing);
    }
  }

  /** @throws RegistryError above the limit */
  #count(before: number, added: number): number {
    const { maxParts = MAX_PARTS } = this.#parts;
    if (before + added <= maxParts) return before + added;
    throw refuseBundle(
      `got images with more than ${maxParts} manifests and blobs in all; expected fewer`,
    );
  }

  async #find(
    digest: Digest,
    mediaType: string | undefined,
    registry: string,
  ): Promise<GraphManifest | undefined> {
    const sizeBytes = this.#received.sizeOf(digest);
    if (sizeBytes !== undefined)
      return this.#read(digest, sizeBytes, mediaType);
    const row = await this.#linked(digest, registry);
    return row?.mediaType === undefined
      ? undefined
      : this.#read(digest, row.sizeBytes, row.mediaType);
  }

  async #sizeOf(digest: Digest, registry: string): Promise<number | undefined> {
    return (
      this.#received.sizeOf(digest) ??
      (await this.#linked(digest, registry))?.sizeBytes
    );
  }

  /** Finds a part that the bundle leaves out, and keeps it from eviction. */
  async #linked(digest: Digest, registry: string) {
    if (this.#index.base === undefined) return undefined;
    await this.#received.hold(digest);
    return this.#parts.index.getUpstreamBlob(registry, digest);
  }

  async #read(
    digest: Digest,
    sizeBytes: number,
    mediaType: string | undefined,
  ): Promise<GraphManifest> {
    const name = `${digest} ${mediaType ?? ""}`;
    const known = this.#manifests.get(name);
    if (known !== undefined) return known;
    if (sizeBytes > MAX_MANIFEST_BYTES) {
      throw refuseBundle(
        `manifest ${digest}: got ${sizeBytes} bytes; expected at most ${MAX_MANIFEST_BYTES}`,
      );
    }
    const bytes = await this.#parts.blobs.read(digest, sizeBytes);
    if (
      bytes === undefined ||
      digestOf(bytes, digestAlgorithm(digest)) !== digest
    ) {
      throw refuseBundle(
        `manifest ${digest} is damaged in the storage; run 'entrepot scrub --repair' and import again`,
      );
    }
    const manifest = readGraphManifest(bytes, digest, mediaType);
    const { children } = manifest;
    this.#readCount = this.#count(this.#readCount, 1 + children.length);
    this.#manifests.set(name, manifest);
    return manifest;
  }

  #missing(root: Digest, digest: Digest): Error {
    const { base } = this.#index;
    const part =
      digest === root ? `image ${root}` : `${digest} of image ${root}`;
    return refuseBundle(
      base === undefined
        ? `the bundle does not have ${part}; expected every part of its images`
        : `the base of the bundle is missing: ${part} is neither in the bundle nor stored for its registry; ` +
            `import the bundle whose index.json is ${base} first`,
    );
  }
}

/** @throws RegistryError */
function readGraphManifest(
  bytes: Buffer,
  digest: Digest,
  mediaType: string | undefined,
): GraphManifest {
  const parsed = parseManifest(bytes, mediaType);
  if (!parsed.ok) {
    throw refuseBundle(`manifest ${digest}: ${parsed.detail}`);
  }
  const fault = faultOf(parsed);
  if (fault !== undefined) throw refuseBundle(`manifest ${digest}: ${fault}`);
  const { children, subject } = parsed;
  return {
    digest,
    sizeBytes: bytes.length,
    mediaType: parsed.mediaType,
    children,
    subject,
  };
}

function faultOf({
  kind,
  skippedChildren,
}: ParsedManifest): string | undefined {
  if (kind === "schema1") return "schema 1 is not supported";
  return skippedChildren > 0
    ? "got a digest that is neither sha256 nor sha512"
    : undefined;
}
