import type { Mirror } from "../mirror/mirror.ts";
import type { RepositoryKey } from "../oci/reference.ts";
import type { DroppedBlob } from "../storage/scrub-report.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { PinIndex } from "../storage/root-index.ts";
import type { TagIndex } from "../storage/tag-index.ts";
import type { Logger } from "../telemetry/logger.ts";
import { createEnsureImage, type EnsureImage } from "./ensure-image.ts";

type HealerIndex = Pick<BlobLinks, "getLinkedBlob" | "link"> &
  Pick<PinIndex, "setPinned"> &
  Pick<TagIndex, "getTag" | "putTag">;

/**
 * Fetches content again that a scrub dropped, and restores the tags that pointed to it, so that an
 * image that was complete is complete again before a client requests it.
 */
export class Healer {
  readonly #mirror: Pick<Mirror, "getManifest" | "fetchBlob" | "settleServed">;
  readonly #index: HealerIndex;
  readonly #ensureImage: EnsureImage;
  readonly #log: Pick<Logger, "info" | "warn">;
  readonly #isUpstream: (name: string) => boolean;

  constructor(options: {
    readonly mirror: Pick<Mirror, "getManifest" | "fetchBlob" | "settleServed">;
    readonly index: HealerIndex;
    readonly log: Pick<Logger, "info" | "warn">;
    /** Whether an upstream of that name is configured. May change at any time. */
    readonly isUpstream: (name: string) => boolean;
  }) {
    this.#mirror = options.mirror;
    this.#index = options.index;
    this.#ensureImage = createEnsureImage(options);
    this.#log = options.log;
    this.#isUpstream = options.isUpstream;
  }

  /**
   * Fetches the dropped blob for the first repository whose upstream has it. Never rejects: the next
   * pull fetches what is not available now.
   *
   * @param signal ends the wait; a download that has begun continues
   */
  async heal(dropped: DroppedBlob, signal: AbortSignal): Promise<void> {
    const { digest } = dropped;
    for (const key of dropped.repositories) {
      if (!this.#isUpstream(key.upstream)) continue;
      try {
        if (dropped.isManifest) {
          await this.#restoreManifest(key, dropped, signal);
        } else {
          await this.#mirror.fetchBlob(key, digest);
        }
        this.#log.info({ ...key, digest }, "fetched a damaged blob again");
        return;
      } catch (error) {
        if (signal.aborted) return;
        this.#log.warn(
          { err: error, ...key, digest },
          "could not fetch a damaged blob again",
        );
      }
    }
  }

  async #restoreManifest(
    key: RepositoryKey,
    { digest, repositories, tags }: DroppedBlob,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#ensureImage(
      { key, reference: { kind: "digest", digest } },
      { platforms: [], isWithoutBlobs: true, signal },
    );
    // The other repositories served the same bytes before, so they may serve them again. Hosted ones
    // need a push, which restores their rows.
    for (const other of repositories) {
      if (!this.#isUpstream(other.upstream)) continue;
      await this.#index.link(other, digest);
    }
    for (const { key: of, tag, verifiedAtMs, isPinned } of tags) {
      if (!this.#isUpstream(of.upstream)) continue;
      if ((await this.#index.getTag(of, tag)) === undefined) {
        await this.#index.putTag(of, tag, digest, verifiedAtMs);
      }
      if (isPinned) {
        await this.#index.setPinned(of, { kind: "tag", tag }, true);
      }
    }
  }
}
