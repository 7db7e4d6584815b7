import type { BlobLinks, BlobRow } from "../storage/blob-index.ts";
import type { ImageGraph } from "../storage/graph-index.ts";
import type { Digest } from "../oci/digest.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../wire/deadline.ts";
import { type MirroredUpstream } from "./mirrored-upstream.ts";
import { offlineRefusal } from "./answers.ts";
import { SingleFlight } from "./single-flight.ts";
import type { RepositoryKey } from "../oci/reference.ts";

interface LinksParts {
  readonly index: Pick<BlobLinks, "link"> & Pick<ImageGraph, "findDescriptor">;
  readonly isOffline: () => boolean;
  readonly hasRules: () => boolean;
}

/**
 * Proves that a repository may serve a digest. All repositories share the stored bytes, but the
 * upstream decides who may read them. So each repository needs its own proof; otherwise a digest
 * would be enough to read a private blob through a public repository.
 *
 * A 2xx response to HEAD is proof only if the same upstream has sent the bytes before, for another
 * repository: an upstream can respond 200 to the digest of content that only another one has.
 */
export class Links {
  readonly #parts: LinksParts;
  readonly #proofs = new SingleFlight<void>();

  constructor(parts: LinksParts) {
    this.#parts = parts;
  }

  /**
   * Whether a manifest that names a digest is sufficient proof. Everything in an upstream without
   * credentials is public, unless access rules of this mirror restrict it.
   */
  areManifestsProof(upstream: MirroredUpstream): boolean {
    return !upstream.client.hasCredentials && !this.#parts.hasRules();
  }

  /**
   * Proves that a blob that another repository of the upstream has linked, or is fetching, may be
   * served by this repository.
   *
   * @param known the blob's row; undefined while it is being fetched
   * @throws Refusal, UpstreamError if the upstream does not confirm it
   */
  async prove(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    wanted: "blob" | "manifest",
    known: BlobRow | undefined,
  ): Promise<void> {
    if (
      known !== undefined &&
      (await this.#isNamedByOwnManifest(upstream, key, digest))
    ) {
      await this.#note(key, digest, known);
      return;
    }
    if (this.#parts.isOffline()) throw offlineRefusal(wanted);
    await this.#proofs.run(`${key.upstream} ${key.repository} ${digest}`, () =>
      this.#ask(upstream, key, digest, wanted, known),
    );
  }

  /** Called only for content that another repository of the upstream has linked. */
  async #isNamedByOwnManifest(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<boolean> {
    if (!this.areManifestsProof(upstream)) return false;
    try {
      return (
        (await this.#parts.index.findDescriptor(key, digest)) !== undefined
      );
    } catch {
      return false;
    }
  }

  async #ask(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    wanted: "blob" | "manifest",
    known: BlobRow | undefined,
  ): Promise<void> {
    const { client } = upstream;
    await withDeadline<unknown>(ANSWER_DEADLINE_MS, (signal) =>
      wanted === "blob"
        ? client.headBlob(key.repository, digest, signal)
        : client.headManifest(
            key.repository,
            { kind: "digest", digest },
            signal,
          ),
    );
    // A blob that is being fetched is linked once it is stored.
    if (known !== undefined) await this.#note(key, digest, known);
  }

  /** Links the blob. The proof holds even if the index cannot record it. */
  async #note(
    key: RepositoryKey,
    digest: Digest,
    { mediaType }: BlobRow,
  ): Promise<void> {
    await this.#parts.index.link(key, digest, mediaType).catch(() => {});
  }
}
