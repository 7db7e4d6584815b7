import type {
  EvictedImage,
  EvictionRequest,
  Evictor,
} from "../retention/evictor.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import type { BlobScope, ImageGraph } from "../storage/graph-index.ts";
import type { BlobRecords } from "../storage/blob-index.ts";
import type { UseIndex } from "../storage/metadata-index.ts";
import type { IndexCursor } from "../storage/index-cursor.ts";
import type {
  ImageIndex,
  PinIndex,
  RootName,
  RootRow,
} from "../storage/root-index.ts";
import { Pace } from "../retention/victim-search.ts";
import type { Digest } from "../oci/digest.ts";
import { compilePattern } from "../oci/glob.ts";
import type { Routes } from "../routing/routes.ts";
import type { HostedImages } from "./hosted-images.ts";
import { type ImagePlatform, ImagePlatforms } from "./image-platforms.ts";
import {
  type ImageReference,
  imageText,
  parseImageReference,
  parseImageText,
} from "./image-reference.ts";

type ImagesIndex = Pick<BlobRecords, "getBlob"> &
  ImageGraph &
  ImageIndex &
  Pick<PinIndex, "setPinned"> &
  Pick<UseIndex, "settleUses">;

/** The parts of {@link HostedImages} that reads of images need. */
type ImagesHosted = Pick<HostedImages, "isHosted" | "listReferrers">;
type ImagesRoutes = Pick<Routes, "routeRepository">;

/** A cached image as `ls --json` and the operator API report it. */
export interface ImageSummary {
  readonly ref: string;
  readonly digest: Digest;
  readonly mediaType: string;
  /** Size of all stored parts. */
  readonly sizeBytes: number;
  /** Whether the image, or at least one platform of an index, can be pulled without its upstream. */
  readonly complete: boolean;
  readonly pinned: boolean;
  /** Pushed to this server or tagged here: never evicted. */
  readonly hosted: boolean;
  /** ISO 8601. */
  readonly pulledAt: string;
  /** In the order of the index; one for an image whose config is stored, none for an artifact. */
  readonly platforms: readonly ImagePlatform[];
}

/** A digest in an image's graph, where it appears first. */
export interface ImagePart {
  readonly digest: Digest;
  readonly kind: "manifest" | "config" | "blob";
  /** Null if unknown. */
  readonly mediaType: string | null;
  readonly sizeBytes: number | null;
  readonly stored: boolean;
  /** The manifest that names it; null for the image's own manifest. */
  readonly parent: Digest | null;
}

/** A manifest whose subject is the image. */
export interface ImageReferrer {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly artifactType: string | null;
  readonly sizeBytes: number;
}

export interface ImageDetail extends ImageSummary {
  readonly graph: readonly ImagePart[];
  /** Of a hosted image; the referrers of a mirrored one are its upstream's. */
  readonly referrers: readonly ImageReferrer[];
}

export interface ImageQuery {
  /** A glob over `upstream/repository[:tag]`; text without `*` matches anywhere in it. */
  readonly q: string | undefined;
  readonly n: number;
  readonly last: ImageReference | undefined;
}

export interface ImageList {
  readonly images: readonly ImageSummary[];
  /** The `last` of the next page; undefined at the end. */
  readonly last: string | undefined;
}

/** The images that were evicted, or would be. */
export interface EvictionReport {
  readonly images: readonly {
    readonly ref: string;
    readonly digest: Digest;
    /** Bytes freed with the image. */
    readonly sizeBytes: number;
    readonly pulledAt: string;
    readonly reason: string;
  }[];
  readonly freedBytes: number;
}

const ROWS_PER_QUERY = 64;
/** Rows that one page of a search reads; the next page continues after them. */
const MAX_SEARCHED = 20_000;

/** Lists and changes the images in the cache for operators. Methods throw IndexError and StorageError. */
export class Images {
  readonly #index: ImagesIndex;
  readonly #evictor: Evictor;
  readonly #hasCredentials: (upstream: string) => boolean;
  readonly #routes: ImagesRoutes;
  readonly #hosted: ImagesHosted;
  readonly #platforms: ImagePlatforms;
  /** The index answers synchronously: without pauses a long list would delay every request. */
  readonly #pace = new Pace();

  constructor(options: {
    readonly index: ImagesIndex;
    readonly blobs: Pick<BlobStore, "read">;
    readonly evictor: Evictor;
    readonly hasCredentials: (upstream: string) => boolean;
    readonly routes: ImagesRoutes;
    readonly hosted: ImagesHosted;
  }) {
    this.#index = options.index;
    this.#hosted = options.hosted;
    this.#routes = options.routes;
    this.#evictor = options.evictor;
    this.#hasCredentials = options.hasCredentials;
    this.#platforms = new ImagePlatforms({ ...options, pace: this.#pace });
  }

  async list({ q, n, last }: ImageQuery): Promise<ImageList> {
    await this.#index.settleUses();
    const isWanted = matcherOf(q);
    const images: ImageSummary[] = [];
    let searchedTo: ImageReference | undefined = last;
    let after: IndexCursor | RootName | undefined = last;
    for (let searched = 0; searched < MAX_SEARCHED;) {
      const page = await this.#index.listImages(ROWS_PER_QUERY, after);
      for (const row of page.images) {
        if (isWanted(row)) {
          // One more match than wanted: another page follows.
          if (images.length === n) {
            return { images, last: searchedTo && imageText(searchedTo) };
          }
          images.push(await this.#summary(row));
        }
        searchedTo = row;
        await this.#pace.step();
      }
      searched += page.images.length;
      after = page.next;
      if (after === undefined) return { images, last: undefined };
    }
    return { images, last: searchedTo && imageText(searchedTo) };
  }

  /**
   * Finds the image that an operator names. A name as {@link list} returns it means that image if the
   * configuration gives the name another meaning under which nothing is stored: its registry was removed.
   *
   * @returns undefined if the text is not a reference
   */
  async resolve(text: string): Promise<ImageReference | undefined> {
    const image = parseImageReference(text, this.#routes);
    const listed = parseImageText(text);
    if (
      image === undefined ||
      listed === undefined ||
      imageText(image) === imageText(listed) ||
      (await this.#isStored(image))
    ) {
      return image;
    }
    return (await this.#isStored(listed)) ? listed : image;
  }

  async #isStored({ key, reference }: ImageReference): Promise<boolean> {
    return (await this.#index.getRoot(key, reference)) !== undefined;
  }

  async get(image: ImageReference): Promise<ImageDetail | undefined> {
    await this.#index.settleUses();
    const row = await this.#index.getRoot(image.key, image.reference);
    if (row?.mediaType === undefined) return undefined;
    return {
      ...(await this.#summary(row)),
      graph: await this.#graph(row),
      referrers: await this.#referrers(row),
    };
  }

  /** @returns false if the image is not cached */
  setPinned(image: ImageReference, isPinned: boolean): Promise<boolean> {
    return this.#index.setPinned(image.key, image.reference, isPinned);
  }

  /** @returns the bytes freed; undefined if the image is not cached */
  remove(image: ImageReference): Promise<number | undefined> {
    return this.#evictor.remove(image.key, image.reference);
  }

  async evict(request: EvictionRequest): Promise<EvictionReport> {
    const evicted = await this.#evictor.evict(request);
    return {
      images: evicted.map(({ root, freedBytes, reason }: EvictedImage) => ({
        ref: imageText(root),
        digest: root.digest,
        sizeBytes: freedBytes,
        pulledAt: timeText(root.usedAtMs),
        reason,
      })),
      freedBytes: evicted.reduce((sum, { freedBytes }) => sum + freedBytes, 0),
    };
  }

  async #summary(row: RootRow): Promise<ImageSummary> {
    const registry = row.key.upstream;
    const hosted = await this.#hosted.isHosted(registry);
    const scope: BlobScope =
      hosted || this.#hasCredentials(registry) ? "repository" : "upstream";
    return {
      ref: imageText(row),
      digest: row.digest,
      mediaType: row.mediaType ?? "",
      sizeBytes: await this.#storedBytes(row.digest),
      complete: await this.#index.isComplete(row.key, row.digest, scope),
      pinned: row.isPinned,
      hosted,
      pulledAt: timeText(row.usedAtMs),
      platforms: await this.#platforms.list(row.key, row.digest, scope),
    };
  }

  async #storedBytes(digest: Digest): Promise<number> {
    let bytes = 0;
    await this.#walk(digest, (node) => {
      bytes += node.sizeBytes ?? 0;
    });
    return bytes;
  }

  async #referrers({ key, digest }: RootRow): Promise<ImageReferrer[]> {
    if (!(await this.#hosted.isHosted(key.upstream))) return [];
    const referrers = await this.#hosted.listReferrers(key, digest);
    return referrers.map((one) => ({
      digest: one.digest,
      mediaType: one.mediaType,
      artifactType: one.artifactType ?? null,
      sizeBytes: one.sizeBytes,
    }));
  }

  async #graph({ key, digest }: RootRow): Promise<ImagePart[]> {
    const parts: ImagePart[] = [];
    await this.#walk(digest, async (node, parent) => {
      const [blob, descriptor, isConfig] = await Promise.all([
        this.#index.getBlob(node.digest),
        this.#index.findDescriptor(key, node.digest),
        parent !== undefined && this.#platforms.isConfigOf(parent, node.digest),
      ]);
      parts.push({
        digest: node.digest,
        kind: node.isManifest ? "manifest" : isConfig ? "config" : "blob",
        mediaType: blob?.mediaType ?? descriptor?.mediaType ?? null,
        sizeBytes: node.sizeBytes ?? descriptor?.sizeBytes ?? null,
        stored: node.sizeBytes !== undefined,
        parent: parent ?? null,
      });
    });
    return parts;
  }

  /** Visits each digest of a graph once, manifests before their children. */
  async #walk(
    root: Digest,
    visit: (
      node: {
        readonly digest: Digest;
        readonly sizeBytes: number | undefined;
        readonly isManifest: boolean;
      },
      parent: Digest | undefined,
    ) => void | Promise<void>,
  ): Promise<void> {
    const top = await this.#index.getNode(root);
    if (top === undefined) return;
    const seen = new Set([root]);
    await visit(top, undefined);
    const waiting = [top];
    for (;;) {
      const node = waiting.shift();
      if (node === undefined) return;
      if (!node.isManifest) continue;
      let after: IndexCursor | undefined;
      do {
        const page = await this.#index.listChildren(node.digest, after);
        for (const child of page.nodes) {
          if (seen.has(child.digest)) continue;
          seen.add(child.digest);
          await visit(child, node.digest);
          waiting.push(child);
        }
        await this.#pace.step();
        after = page.next;
      } while (after !== undefined);
    }
  }
}

function matcherOf(q: string | undefined): (image: ImageReference) => boolean {
  if (q === undefined || q === "") return () => true;
  if (!q.includes("*")) return (image) => imageText(image).includes(q);
  const matches = compilePattern(q);
  return ({ key, reference }) =>
    matches(
      `${key.upstream}/${key.repository}`,
      reference.kind === "tag" ? reference.tag : undefined,
    );
}

function timeText(atMs: number): string {
  return new Date(atMs).toISOString();
}
