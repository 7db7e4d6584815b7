import type { Digest } from "../../../oci/digest.ts";
import { parsePushedManifest } from "../../../oci/pushed-manifest.ts";
import type { Reference, RepositoryKey } from "../../../oci/reference.ts";
import { addReferrer, emptyImageIndex } from "../../../oci/referrers.ts";
import type { Evictor } from "../../../retention/evictor.ts";
import type { BlobLinks, BlobRecords } from "../../../storage/blob-index.ts";
import type { BlobStore } from "../../../storage/blob-store.ts";
import type { StoredReferrers } from "../../../storage/list-index.ts";
import type { UseIndex } from "../../../storage/metadata-index.ts";
import type { ImageIndex, PinIndex } from "../../../storage/root-index.ts";
import type { TagIndex } from "../../../storage/tag-index.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import type { GraphManifest } from "./bundle-graph.ts";
import type { PlannedImage } from "./plan-import.ts";

export interface RecordMirroredParts {
  readonly index: Pick<BlobLinks, "getLinkedBlob" | "link"> &
    Pick<BlobRecords, "getBlob" | "recordBlob"> &
    Pick<ImageIndex, "getRoot"> &
    Pick<PinIndex, "setPinned"> &
    Pick<TagIndex, "getTag" | "putTag"> &
    Pick<UseIndex, "touchManifest" | "touchTag"> &
    StoredReferrers;
  readonly blobs: Pick<BlobStore, "read">;
  readonly evictor: Pick<Evictor, "remove">;
  readonly clock: Clock;
}

/** Never verified with its upstream: stale from the start. */
const NEVER_MS = 0;

/** Records images of upstreams, whose blobs are all stored. */
export class MirroredRecords {
  readonly #parts: RecordMirroredParts;
  /** What to undo, in the order of the changes. */
  readonly #undo: (() => Promise<unknown>)[] = [];

  constructor(parts: RecordMirroredParts) {
    this.#parts = parts;
  }

  /** Links the parts of an image bottom-up, without its tag. @throws IndexError */
  async store(image: PlannedImage): Promise<void> {
    const { key, digest, graph } = image;
    for (const [blob, sizeBytes] of graph.blobs) {
      await this.#link(key, blob, sizeBytes, undefined);
    }
    await this.#noteRoot(key, { kind: "digest", digest });
    for (const manifest of graph.manifests) {
      await this.#link(key, manifest.digest, manifest.sizeBytes, manifest);
    }
  }

  /** Points the tag of a stored image to it, or lists it as a referrer. @throws IndexError */
  async name(image: PlannedImage, isPinned: boolean): Promise<void> {
    const { key, reference, digest } = image;
    const { index, clock } = this.#parts;
    const nowMs = clock.nowMs();
    if (reference.kind === "tag") {
      await this.#putTag(key, reference, digest, nowMs);
    }
    index.touchManifest(key, digest, nowMs);
    if (image.isReferrer) await this.#list(image);
    else if (isPinned) await this.#pin(key, reference);
  }

  /** Removes the names that were added, as far as that is possible. */
  async undo(): Promise<void> {
    for (const undo of this.#undo.toReversed()) {
      await undo().catch(() => undefined);
    }
  }

  async #pin(key: RepositoryKey, reference: Reference): Promise<void> {
    const { index } = this.#parts;
    if ((await index.getRoot(key, reference))?.isPinned === true) return;
    this.#undo.push(() => index.setPinned(key, reference, false));
    await index.setPinned(key, reference, true);
  }

  async #noteRoot(key: RepositoryKey, reference: Reference): Promise<void> {
    const { index, evictor } = this.#parts;
    if ((await index.getRoot(key, reference)) !== undefined) return;
    this.#undo.push(() => evictor.remove(key, reference));
  }

  async #putTag(
    key: RepositoryKey,
    reference: Reference & { readonly kind: "tag" },
    digest: Digest,
    nowMs: number,
  ): Promise<void> {
    const { index, evictor } = this.#parts;
    const { tag } = reference;
    const before = await index.getTag(key, tag);
    if (before?.digest !== digest || before.goneAtMs !== undefined) {
      this.#undo.push(() =>
        before === undefined
          ? evictor.remove(key, reference)
          : index.putTag(key, tag, before.digest, before.verifiedAtMs),
      );
      await index.putTag(key, tag, digest, NEVER_MS, nowMs);
    }
    index.touchTag(key, tag, nowMs);
  }

  /** Links a stored blob or manifest to the repository; one that was adopted gets its edges. */
  async #link(
    key: RepositoryKey,
    digest: Digest,
    sizeBytes: number,
    manifest: GraphManifest | undefined,
  ): Promise<void> {
    const { index, clock } = this.#parts;
    const row = await index.getBlob(digest);
    if (
      row !== undefined &&
      (manifest === undefined || row.mediaType !== undefined)
    ) {
      await index.link(key, digest, manifest?.mediaType);
      if ((await index.getLinkedBlob(key, digest)) !== undefined) return;
    }
    const storedAtMs = clock.nowMs();
    await index.recordBlob(key, {
      digest,
      sizeBytes,
      storedAtMs,
      ...(manifest === undefined ? {} : { manifest }),
    });
  }

  /**
   * Adds a referrer to the list of its subject, which is served while the upstream is out of reach. It
   * has a list of its own, because clients ask for referrers of referrers.
   */
  async #list({ key, digest, graph }: PlannedImage): Promise<void> {
    const { index, blobs } = this.#parts;
    const manifest = graph.manifests.at(-1);
    if (manifest?.subject === undefined) return;
    if ((await index.getReferrers(key, digest)) === undefined) {
      const body = emptyImageIndex();
      await index.putReferrers(key, digest, { body, verifiedAtMs: NEVER_MS });
    }
    const { subject, sizeBytes, mediaType } = manifest;
    const bytes = await blobs.read(digest, sizeBytes);
    const parsed = bytes && parsePushedManifest(bytes, mediaType);
    const row = await index.getReferrers(key, subject);
    if (row !== undefined) {
      this.#undo.push(() => index.putReferrers(key, subject, row));
    }
    const body = addReferrer(row?.body, {
      digest,
      sizeBytes,
      mediaType,
      artifactType: parsed?.ok === true ? parsed.artifactType : undefined,
      annotations: parsed?.ok === true ? parsed.annotations : undefined,
    });
    if (body === undefined) return;
    const verifiedAtMs = row?.verifiedAtMs ?? NEVER_MS;
    await index.putReferrers(key, subject, { body, verifiedAtMs });
  }
}
