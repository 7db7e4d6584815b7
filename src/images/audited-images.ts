import type { EvictionRequest } from "../retention/evictor.ts";
import type { Audit } from "../telemetry/audit.ts";
import { type ImageReference, imageText } from "./image-reference.ts";
import type { EvictionReport, Images } from "./images.ts";

type Parts = Pick<Images, "setPinned" | "remove" | "evict">;

/** What changes the cached images by somebody's order, and is recorded as theirs. */
export class AuditedImages {
  readonly #images: Parts;
  readonly #audit: Pick<Audit, "record">;
  readonly #client: string;

  /** @param client who orders: an address, or `command-line` */
  constructor(images: Parts, audit: Pick<Audit, "record">, client: string) {
    this.#images = images;
    this.#audit = audit;
    this.#client = client;
  }

  /** @returns false where it is not cached: nothing is recorded then; so below */
  async setPinned(image: ImageReference, isPinned: boolean): Promise<boolean> {
    const isThere = await this.#images.setPinned(image, isPinned);
    if (isThere) this.#record(isPinned ? "pinned" : "unpinned", image);
    return isThere;
  }

  /** @returns bytes that were freed; undefined where it is not cached */
  async remove(image: ImageReference): Promise<number | undefined> {
    const freedBytes = await this.#images.remove(image);
    if (freedBytes !== undefined) this.#record("purged", image);
    return freedBytes;
  }

  /** A line for each image; none where it is only said what would go. */
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
