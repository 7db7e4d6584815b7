import type { EvictionRequest } from "../retention/evictor.ts";
import type { Audit } from "../telemetry/audit.ts";
import { type ImageReference, imageText } from "./image-reference.ts";
import type { EvictionReport, Images } from "./images.ts";

type Parts = Pick<Images, "setPinned" | "remove" | "evict">;

/** Changes cached images on an operator's order, and records the order in the audit log. */
export class AuditedImages {
  readonly #images: Parts;
  readonly #audit: Pick<Audit, "record">;
  readonly #client: string;

  /** @param client the source of the order: an address, or `command-line` */
  constructor(images: Parts, audit: Pick<Audit, "record">, client: string) {
    this.#images = images;
    this.#audit = audit;
    this.#client = client;
  }

  /** @returns false if the image is not cached; then nothing is recorded */
  async setPinned(image: ImageReference, isPinned: boolean): Promise<boolean> {
    const isCached = await this.#images.setPinned(image, isPinned);
    if (isCached) this.#record(isPinned ? "pinned" : "unpinned", image);
    return isCached;
  }

  /** @returns the bytes freed; undefined if the image is not cached, and then nothing is recorded */
  async remove(image: ImageReference): Promise<number | undefined> {
    const freedBytes = await this.#images.remove(image);
    if (freedBytes !== undefined) this.#record("purged", image);
    return freedBytes;
  }

  /** Records each evicted image; a dry run records none. */
  async evict(request: EvictionRequest): Promise<EvictionReport> {
    const report = await this.#images.evict(request);
    for (const { ref: reference, digest } of request.isDryRun
      ? []
      : report.images) {
      const client = this.#client;
      this.#audit.record({ event: "purged", client, reference, digest });
    }
    return report;
  }

  #record(event: "purged" | "pinned" | "unpinned", image: ImageReference) {
    const reference = imageText(image);
    this.#audit.record({ event, client: this.#client, reference });
  }
}
