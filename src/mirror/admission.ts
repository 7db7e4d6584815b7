import type { Reference, RepositoryKey } from "../oci/reference.ts";
import type { Refusal } from "./answers.ts";
import type { ManifestAnswer } from "./manifests/manifest-answers.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";

/** The answer to send, which may differ from the one that was judged, or the error in its place. */
export type AdmissionVerdict = ManifestAnswer | Refusal;

/**
 * Decides which content of the upstreams clients may have, in two steps: before anything is looked
 * up, and after a manifest was found and verified. Every answer to a manifest request passes
 * {@link Admission.admit}: stored or fetched, by tag or by digest, fresh or stale, GET or HEAD. A
 * manifest that is requested as a blob passes {@link Admission.mayRequest} only.
 */
export interface Admission {
  /**
   * Decides whether a request is allowed at all, so that content cached under an earlier
   * configuration is not served and a forbidden name causes no upstream request.
   *
   * @param reference undefined for lists of tags and referrers
   */
  mayRequest(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference | undefined,
  ): boolean;
  /**
   * Judges a manifest that is about to be answered. Must return a plain value if the verdict is
   * known: hits from memory are answered synchronously, and a promise sends them to the slow path,
   * where the same manifest is judged again. Returns a refusal instead of throwing it.
   */
  admit(
    upstream: MirroredUpstream,
    key: RepositoryKey,
    reference: Reference,
    manifest: ManifestAnswer,
    isHead: boolean,
  ): AdmissionVerdict | Promise<AdmissionVerdict>;
}

/** Allows what the `allow` and `deny` patterns of the upstream allow, and admits every manifest of it. */
export const PATTERN_ADMISSION: Admission = {
  mayRequest: (upstream, key, reference) =>
    upstream.mayPull(key.repository, reference),
  admit: (_upstream, _key, _reference, manifest) => manifest,
};
