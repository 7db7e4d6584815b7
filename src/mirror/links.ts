import type { MetadataIndex, RepositoryKey } from "../cache/metadata-index.ts";
import type { Digest } from "../oci/digest.ts";
import { withDeadline } from "../upstream/deadline.ts";
import {
  ANSWER_DEADLINE_MS,
  type MirroredUpstream,
} from "./mirrored-upstream.ts";
import { offlineRefusal } from "./answers.ts";
import { SingleFlight } from "./single-flight.ts";

/**
 * Proof that a repository may serve a digest. Bytes are shared by all repositories that have
 * them, but who may read them is the upstream's to say: so each repository needs its own proof,
 * or the name of a digest would be enough to read a private blob through a public repository.
 */
export class Links {
  readonly #index: MetadataIndex;
  readonly #isOffline: () => boolean;
  readonly #hasRules: () => boolean;
  readonly #proofs = new SingleFlight<void>();

  constructor(options: {
    index: MetadataIndex;
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
   * Makes sure that the blob, stored or on its way, may be served under the repository.
   *
   * @throws Refusal, UpstreamError where the upstream does not say so
   */
  async prove(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    wanted: "blob" | "manifest",
  ): Promise<void> {
    if (await this.#isNamedByOwnManifest(upstream, key, digest)) {
      await this.#note(key, digest);
      return;
    }
    if (this.#isOffline()) throw offlineRefusal(wanted);
    await this.#proofs.run(`${key.upstream} ${key.repository} ${digest}`, () =>
      this.#ask(upstream, key, digest, wanted),
    );
  }

  /** A manifest of the repository is proof only once any repository of that upstream has the blob. */
  async #isNamedByOwnManifest(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
  ): Promise<boolean> {
    if (!this.areManifestsProof(upstream)) return false;
    try {
      const [isLinked, descriptor] = await Promise.all([
        this.#index.isLinkedInUpstream(key.upstream, digest),
        this.#index.findDescriptor(key, digest),
      ]);
      return isLinked && descriptor !== undefined;
    } catch {
      return false;
    }
  }

  async #ask(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    digest: Digest,
    wanted: "blob" | "manifest",
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
    await this.#note(key, digest);
  }

  /** The proof holds whether or not the index can take it down. */
  async #note(key: RepositoryKey, digest: Digest): Promise<void> {
    await this.#index.link(key, digest).catch(() => {});
  }
}
