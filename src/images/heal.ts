import type { DroppedBlob } from "../storage/scrub-report.ts";
import type { MetadataIndex } from "../storage/metadata-index.ts";
import type { Digest } from "../oci/digest.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Mirror } from "../mirror/mirror.ts";
import type { RepositoryKey } from "../oci/reference.ts";

/**
 * Fetches again what a scrub had to drop, and points the tags to it that did before, so that an
 * image that was complete is complete again before anybody asks for it.
 */
export class Healer {
  readonly #mirror: Mirror;
  readonly #index: MetadataIndex;
  readonly #log: Pick<Logger, "info" | "warn">;
  readonly #isUpstream: (name: string) => boolean;

  constructor(options: {
    readonly mirror: Mirror;
    readonly index: MetadataIndex;
    readonly log: Pick<Logger, "info" | "warn">;
    /** Whether an upstream of that name is configured. May change at any time. */
    readonly isUpstream: (name: string) => boolean;
  }) {
    this.#mirror = options.mirror;
    this.#index = options.index;
    this.#log = options.log;
    this.#isUpstream = options.isUpstream;
  }

  /** Never rejects: what can't be fetched now is fetched by the next pull. */
  async heal(dropped: DroppedBlob): Promise<void> {
    const { digest } = dropped;
    for (const key of dropped.repositories) {
      if (!this.#isUpstream(key.upstream)) continue;
      try {
        if (dropped.isManifest) await this.#fetchManifest(key, dropped);
        else await this.#startFill(key, digest);
        this.#log.info({ ...key, digest }, "a damaged blob is fetched again");
        return;
      } catch (error) {
        this.#log.warn(
          { err: error, ...key, digest },
          "a damaged blob can't be fetched again now",
        );
      }
    }
  }

  async #startFill(key: RepositoryKey, digest: Digest): Promise<void> {
    const answer = await this.#mirror.openBlob(key, digest);
    // The fill goes on without a reader.
    if (answer.kind !== "unsatisfiable") answer.body.close();
  }

  async #fetchManifest(
    key: RepositoryKey,
    { digest, repositories, tags }: DroppedBlob,
  ): Promise<void> {
    await this.#mirror.getManifest(key, { kind: "digest", digest });
    // They served it before, and the bytes are the same.
    for (const other of repositories) await this.#index.link(other, digest);
    for (const { key: of, tag, verifiedAtMs, isPinned } of tags) {
      if ((await this.#index.getTag(of, tag)) === undefined) {
        await this.#index.putTag(of, tag, digest, verifiedAtMs);
      }
      if (isPinned) {
        await this.#index.setPinned(of, { kind: "tag", tag }, true);
      }
    }
  }
}
