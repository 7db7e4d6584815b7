import type { BlobLinks, BlobRow } from "../storage/blob-index.ts";
import type { ImageGraph } from "../storage/graph-index.ts";
import type { Digest } from "../oci/digest.ts";
import { ANSWER_DEADLINE_MS, withDeadline } from "../wire/deadline.ts";
import { type MirroredUpstream } from "./mirrored-upstream.ts";
import { offlineRefusal } from "./answers.ts";
import { SingleFlight } from "./single-flight.ts";
import type { RepositoryKey } from "../oci/reference.ts";

/**
 * Proof that a repository may serve a digest. Bytes are shared by all repositories that have
 * them, but who may read them is the upstream's to say: so each repository needs its own proof,
 * or the name of a digest would be enough to read a private blob through a public repository.
 *
 * A 2xx to HEAD is proof only where that upstream itself has shown the bytes before, for another
 * repository: any upstream can say 200 to the digest of what only another one has.
 */
export class Links {
  readonly #index: Pick<BlobLinks, "link"> & Pick<ImageGraph, "findDescriptor">;
  readonly #isOffline: () => boolean;
  readonly #hasRules: () => boolean;
  readonly #proofs = new SingleFlight<void>();

  constructor(options: {
    index: Pick<BlobLinks, "link"> & Pick<ImageGraph, "findDescriptor">;
    isOffline: () => boolean;
    hasRules: () => boolean;
  }) {
    this.#index = options.index;
    this.#isOffline = options.isOffline;
    this.#hasRules = options.hasRules;
  }

  /**
   * Whether a manifest that names a digest is proof enough. In an upstream without credentials
   * everything is public, unless rules of our own say who may read what of it.
   */
  areManifestsProof(upstream: MirroredUpstream): boolean {
    return !upstream.client.hasCredentials && !this.#hasRules();
  }

  /**
   * Makes sure that a blob of another repository of the upstream, linked there or on its way, may
   * be served under this one.
   *
   * @param known its row; undefined while it is on its way
   * @throws Refusal, UpstreamError where the upstream does not say so
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
    if (this.#isOffline()) throw offlineRefusal(wanted);
    await this.#proofs.run(`${key.upstream} ${key.repository} ${digest}`, () =>
      this.#ask(upstream, key, digest, wanted, known),
    );
  }

  /** Asked only of what another repository of the upstream has linked. */
  async #isNamedByOwnManifest(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<boolean> {
    if (!this.areManifestsProof(upstream)) return false;
    try {
      return (await this.#index.findDescriptor(key, digest)) !== undefined;
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
    // What is on its way is linked once it is stored.
    if (known !== undefined) await this.#note(key, digest, known);
  }

  /** The proof holds whether or not the index can take it down. */
  async #note(
    key: RepositoryKey,
    digest: Digest,
    { mediaType }: BlobRow,
  ): Promise<void> {
    await this.#index.link(key, digest, mediaType).catch(() => {});
  }
}
