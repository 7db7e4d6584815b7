import type { BlobRow } from "../storage/blob-index.ts";
import type { Digest } from "../oci/digest.ts";
import { RegistryError } from "../oci/errors.ts";
import type { Reference, RepositoryKey, Tag } from "../oci/reference.ts";
import { UpstreamError, type UpstreamErrorKind } from "../wire/errors.ts";
import { type Admission, PATTERN_ADMISSION } from "./admission.ts";
import { withinDeadline } from "./answer-deadline.ts";
import {
  negativeRefusal,
  offlineRefusal,
  policyRefusal,
  Refusal,
  toRefusal,
  type Wanted,
} from "./answers.ts";
import type {
  BlobAnswer,
  BlobDemand,
  BlobHead,
} from "../bodies/blob-answer.ts";
import {
  buildMirror,
  type MirrorOptions,
  type MirrorParts,
} from "./build-mirror.ts";
import type { CurrentUpstreams } from "./current-upstreams.ts";
import type { FillProgress } from "./fills/running-fill.ts";
import type { PageRequest } from "./lists/pages.ts";
import type { ReferrersAnswer } from "./lists/referrers.ts";
import type { TagsAnswer } from "./lists/tag-lists.ts";
import type { ManifestAnswer } from "./manifests/manifest-answers.ts";
import type { MirroredUpstream } from "./mirrored-upstream.ts";
import { createWarming, type Warming } from "./warming.ts";

/** Answers the requests of clients and operators. Every method throws {@link Refusal} and nothing else. */
export interface Mirror extends Warming {
  /** @param isHead true: only the head is requested, which is not a pull */
  getManifest(
    target: RepositoryKey,
    reference: Reference,
    isHead?: boolean,
  ): Promise<ManifestAnswer>;
  /**
   * Returns a hit from memory synchronously; undefined if {@link getManifest} must be called. Never
   * throws.
   */
  recallManifest(
    target: RepositoryKey,
    reference: Reference,
    isHead?: boolean,
  ): ManifestAnswer | undefined;
  /** Opens a blob or ranges of it. The caller closes the answer's body. */
  openBlob(
    target: RepositoryKey,
    digest: Digest,
    demand?: BlobDemand,
  ): Promise<BlobAnswer>;
  statBlob(target: RepositoryKey, digest: Digest): Promise<BlobHead>;
  /**
   * Stores a blob that no client has requested. Its download has no reader, so that it yields to
   * the downloads of clients. Resolves when the blob is stored, and rejects if it was not.
   */
  fetchBlob(target: RepositoryKey, digest: Digest): Promise<void>;
  listTags(target: RepositoryKey, page: PageRequest): Promise<TagsAnswer>;
  listReferrers(
    target: RepositoryKey,
    subject: Digest,
    artifactTypes: readonly string[],
  ): Promise<ReferrersAnswer>;
  /** Asks the upstream what a tag points to now. */
  refreshTag(
    target: RepositoryKey,
    tag: Tag,
  ): Promise<{ readonly digest: Digest; readonly isChanged: boolean }>;
  /**
   * Asks the upstream again for the referrers of a manifest, and for the repository's list of tags
   * if that is remembered. Succeeds if the upstream has no such list, or does not show it.
   */
  refreshLists(target: RepositoryKey, subject: Digest): Promise<void>;
  /**
   * Returns the response for missing content. Also used for forbidden content, so that a client
   * cannot distinguish the two.
   */
  absence(wanted: Wanted): Refusal;
  /** Replaces the configured upstreams. Running requests keep the upstream they began with. */
  replaceUpstreams(upstreams: readonly MirroredUpstream[]): void;
  /**
   * Handles wrong bytes in a stored blob: bodies that read them are cut.
   *
   * @param remove removes the bytes, and returns whether that succeeded
   */
  dropWrong(row: BlobRow, remove: () => Promise<boolean>): Promise<void>;
  /**
   * Resolves when everything served from memory is known to be stored, which otherwise happens some
   * seconds later.
   */
  settleServed(): Promise<void>;
  /** Lists the running fills, oldest first. */
  listFills(): readonly FillProgress[];
  /** Ends every fill and keeps the bytes received. */
  close(): Promise<void>;
}

/** Kinds of error by which an upstream refuses a list that it does not have or does not show. */
const WITHHELD: ReadonlySet<UpstreamErrorKind> = new Set([
  "not-found",
  "unauthorized",
  "denied",
]);

/** Builds a mirror whose methods translate every error into a {@link Refusal}. */
export function createMirror(options: MirrorOptions): Mirror {
  const parts = buildMirror(options);
  const admission = options.admission ?? PATTERN_ADMISSION;
  const answer = createAnswer(parts.upstreams, admission);
  const { upstreams, stored, manifests, children, fills, reads } = parts;
  return {
    ...manifestMethods(parts, admission, answer),
    ...blobMethods(parts, answer),
    ...listMethods(parts, answer),
    ...createWarming({ ...options, ...parts, admission }, answer),
    absence: (wanted) =>
      options.isOffline() ? offlineRefusal(wanted) : negativeRefusal(wanted),
    replaceUpstreams: (replaced) => upstreams.replace(replaced),
    dropWrong: (row, remove) => reads.dropWrong(row, remove),
    settleServed: () => stored.settle(),
    listFills: () => fills.list(),
    close: async () => {
      const stopped = children.stop();
      await fills.close();
      await manifests.close();
      await stopped;
    },
  };
}

type Answer = <T>(
  target: RepositoryKey,
  wanted: Wanted,
  reference: Reference | undefined,
  work: (upstream: MirroredUpstream) => Promise<T>,
) => Promise<T>;

/** The one place where an error of the mirror becomes an answer. */
function createAnswer(
  upstreams: CurrentUpstreams,
  admission: Admission,
): Answer {
  return async (target, wanted, reference, work) => {
    const upstream = upstreams.get(target.upstream, wanted);
    if (!admission.mayRequest(upstream, target, reference)) {
      throw policyRefusal(wanted);
    }
    try {
      return await work(upstream);
    } catch (error) {
      throw toRefusal(error, {
        wanted,
        hasCredentials: upstream.client.hasCredentials,
      });
    }
  };
}

function manifestMethods(
  { upstreams, manifests, children }: MirrorParts,
  admission: Admission,
  answer: Answer,
): Pick<Mirror, "getManifest" | "recallManifest" | "refreshTag"> {
  return {
    getManifest: (target, reference, isHead = false) =>
      answer(target, "manifest", reference, async (upstream) => {
        const found = await manifests.get(upstream, target, reference);
        const judged = admission.admit(
          upstream,
          target,
          reference,
          found,
          isHead,
        );
        const verdict = judged instanceof Promise ? await judged : judged;
        if (verdict instanceof Refusal) throw verdict;
        children.onAnswered(target, verdict, isHead);
        return verdict;
      }),
    recallManifest: (target, reference, isHead = false) => {
      const upstream = upstreams.peek(target.upstream);
      if (upstream === undefined) return undefined;
      if (!admission.mayRequest(upstream, target, reference)) return undefined;
      const found = manifests.recall(upstream, target, reference);
      if (found === undefined) return undefined;
      const verdict = admission.admit(
        upstream,
        target,
        reference,
        found,
        isHead,
      );
      // getManifest waits for the verdict, and throws the refusal.
      if (verdict instanceof Promise) {
        // The slow path judges the manifest again, and reports a failure of that.
        verdict.catch(() => undefined);
        return undefined;
      }
      if (verdict instanceof Refusal) return undefined;
      children.onAnswered(target, verdict, isHead);
      return verdict;
    },
    refreshTag: (target, tag) =>
      answer(target, "manifest", { kind: "tag", tag }, (upstream) =>
        manifests.refresh(upstream, target, tag),
      ),
  };
}

function blobMethods(
  { blobs }: MirrorParts,
  answer: Answer,
): Pick<Mirror, "openBlob" | "statBlob" | "fetchBlob"> {
  const answerBlob = <T>(
    target: RepositoryKey,
    digest: Digest,
    work: (upstream: MirroredUpstream) => Promise<T>,
  ): Promise<T> => answer(target, "blob", { kind: "digest", digest }, work);
  return {
    openBlob: (target, digest, demand = {}) =>
      answerBlob(target, digest, (upstream) =>
        withinDeadline(
          blobs.open(upstream, target, digest, demand),
          upstream.name,
          (late) => {
            if (late.kind !== "unsatisfiable") late.body.close();
          },
        ),
      ),
    statBlob: (target, digest) =>
      answerBlob(target, digest, (upstream) =>
        blobs.stat(upstream, target, digest),
      ),
    fetchBlob: (target, digest) =>
      answerBlob(target, digest, async (upstream) => {
        if (await blobs.prefetch(upstream, target, digest)) return;
        throw new RegistryError("UNAVAILABLE", {
          detail:
            "the blob was fetched and not stored: the storage has no room for it, or fails",
        });
      }),
  };
}

function listMethods(
  { manifests, tagLists, referrers }: MirrorParts,
  answer: Answer,
): Pick<Mirror, "listTags" | "listReferrers" | "refreshLists"> {
  return {
    listTags: (target, page) =>
      answer(target, "list", undefined, (upstream) =>
        tagLists.list(upstream, target, page),
      ),
    listReferrers: (target, subject, artifactTypes) =>
      answer(target, "list", undefined, (upstream) =>
        referrers.list(upstream, target, subject, artifactTypes),
      ),
    refreshLists: (target, subject) =>
      answer(target, "list", undefined, async (upstream) => {
        await manifests.refreshReferrersTags(upstream, target, subject);
        await Promise.all([
          unlessWithheld(referrers.refresh(upstream, target, subject)),
          unlessWithheld(tagLists.refresh(upstream, target)),
        ]);
      }),
  };
}

/** Ignores that an upstream has no such list, or does not show it to the mirror. */
async function unlessWithheld(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof UpstreamError) || !WITHHELD.has(error.kind)) {
      throw error;
    }
  }
}
