import type { Collection, GarbageReport } from "../hosted/collection.ts";
import type { Sender } from "../hosted/hosted.ts";
import type { Digest } from "../oci/digest.ts";
import type { EvictionRequest } from "../retention/evictor.ts";
import type { Audit } from "../telemetry/audit.ts";
import type { HostedImages } from "./hosted-images.ts";
import { type ImageReference, imageText } from "./image-reference.ts";
import type { EvictionReport, Images } from "./images.ts";
import {
  tagImage,
  type TagImageParts,
  type TagTarget,
  tagText,
} from "./tag-image.ts";

export interface ImageOrders {
  readonly images: Pick<Images, "setPinned" | "remove" | "evict">;
  readonly hosted: Pick<HostedImages, "isHosted" | "remove" | "untag">;
  readonly tagging: TagImageParts;
  readonly garbage: Pick<Collection, "collect">;
  readonly audit: Pick<Audit, "record">;
}

/** Changes stored images on an operator's order, and records the order in the audit log. */
export class AuditedImages {
  readonly #orders: ImageOrders;
  readonly #sender: Sender & { readonly client: string };

  /** @param sender the source of the order: its client is an address, or `command-line` */
  constructor(
    orders: ImageOrders,
    sender: Sender & { readonly client: string },
  ) {
    this.#orders = orders;
    this.#sender = sender;
  }

  /** @returns false if the image is not stored; then nothing is recorded */
  async setPinned(image: ImageReference, isPinned: boolean): Promise<boolean> {
    const isStored = await this.#orders.images.setPinned(image, isPinned);
    if (isStored) this.#record(isPinned ? "pinned" : "unpinned", image);
    return isStored;
  }

  /**
   * Purges a mirrored image, or deletes a hosted one.
   *
   * @returns the bytes freed; undefined if the image is not stored, and then nothing is recorded
   * @throws RegistryError DENIED if a tag of a hosted image is immutable
   */
  async remove(image: ImageReference): Promise<number | undefined> {
    const { images, hosted } = this.#orders;
    const isHosted = await hosted.isHosted(image.key.upstream);
    const freedBytes = isHosted
      ? await hosted.remove(image, this.#sender)
      : await images.remove(image);
    if (freedBytes !== undefined) {
      this.#record(isHosted ? "deleted" : "purged", image);
    }
    return freedBytes;
  }

  /** Records each evicted image; a dry run records none. */
  async evict(request: EvictionRequest): Promise<EvictionReport> {
    const report = await this.#orders.images.evict(request);
    for (const { ref: reference, digest } of request.isDryRun
      ? []
      : report.images) {
      const { client } = this.#sender;
      this.#orders.audit.record({ event: "purged", client, reference, digest });
    }
    return report;
  }

  /** Gives a stored image a tag in a hosted repository; see {@link tagImage}. */
  async tag(source: ImageReference, target: TagTarget): Promise<Digest> {
    const { tagging, audit } = this.#orders;
    const digest = await tagImage(tagging, source, target, this.#sender);
    audit.record({
      event: "tagged",
      client: this.#sender.client,
      reference: tagText(target),
      source: imageText(source),
      digest,
    });
    return digest;
  }

  /**
   * Deletes a tag of a hosted repository; its manifest stays.
   *
   * @returns the digest that the tag had; undefined if there is no such tag
   * @throws RegistryError DENIED if the tag is immutable
   */
  async untag(target: TagTarget): Promise<Digest | undefined> {
    const { hosted, audit } = this.#orders;
    const { key, tag } = target;
    const digest = await hosted.untag(key, tag, this.#sender);
    if (digest !== undefined) {
      const { client } = this.#sender;
      const reference = tagText(target);
      audit.record({ event: "untagged", client, reference, digest });
    }
    return digest;
  }

  /** Applies retention and collects garbage; a dry run is not recorded. */
  async collect(
    request: Parameters<Collection["collect"]>[0],
  ): Promise<GarbageReport> {
    const { garbage, audit } = this.#orders;
    const report = await garbage.collect(request);
    if (!request.isDryRun) {
      const { deletions, blobs, bytes } = report;
      const { client } = this.#sender;
      audit.record({ event: "collected", client, deletions, blobs, bytes });
    }
    return report;
  }

  #record(
    event: "purged" | "deleted" | "pinned" | "unpinned",
    image: ImageReference,
  ) {
    const { client } = this.#sender;
    const reference = imageText(image);
    this.#orders.audit.record({ event, client, reference });
  }
}
