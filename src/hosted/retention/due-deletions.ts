import type { HostedConfig } from "../../config/config.ts";
import { formatDuration } from "../../config/schema/units.ts";
import type { Digest } from "../../oci/digest.ts";
import {
  isReferrersTag,
  type Reference,
  referrersTagSubject,
  type RepositoryKey,
  type RepositoryName,
  type Tag,
} from "../../oci/reference.ts";
import { Pace } from "../../retention/victim-search.ts";
import type {
  HostedManifests,
  HostedTag,
  ImmutableTags,
  UntaggedManifest,
} from "../../storage/hosted-index.ts";
import type {
  ImageIndex,
  RetentionIndex as BlobRetention,
} from "../../storage/root-index.ts";
import {
  type RepositoryRules,
  TagRules,
  type TagVerdict,
} from "./tag-rules.ts";

export type RetentionIndex = Pick<
  HostedManifests,
  | "listHostedRepositories"
  | "listHostedTags"
  | "listUntaggedManifests"
  | "deleteHostedTag"
  | "deleteHostedManifest"
> &
  Pick<ImageIndex, "getRoot"> &
  Pick<BlobRetention, "isHosted">;

/** A tag or manifest that the rules do not keep. */
export type DueDeletion = {
  readonly key: RepositoryKey;
  readonly isImmutable: ImmutableTags;
  readonly reason: string;
  /** Whether age decided, so that a wrong clock leads to a wrong decision. */
  readonly isTimed: boolean;
} & (
  | { readonly kind: "tag"; readonly row: HostedTag }
  | { readonly kind: "manifest"; readonly row: UntaggedManifest }
);

/** Called for each tag and manifest; `due` is undefined if it is kept. */
export type Visit = (
  kind: DueDeletion["kind"],
  due: DueDeletion | undefined,
) => Promise<void>;

export interface WalkOptions {
  readonly index: RetentionIndex;
  readonly nowMs: number;
  /** Checked after each row. */
  readonly isOver: () => boolean;
}

const PAGE = 100;

/**
 * Visits the tags, then the manifests without a tag, of every repository of a registry, each with the
 * decision of the rules; pinned ones are kept. Reads pages, and lets requests run in between. The
 * visit may delete the row.
 */
export async function walkRegistry(
  config: HostedConfig,
  options: WalkOptions,
  visit: Visit,
): Promise<void> {
  const rules = new TagRules(config);
  const { index, isOver } = options;
  // Shared: most repositories are so small that none of them takes a whole step.
  const pace = new Pace();
  let last: RepositoryName | undefined;
  do {
    const page: readonly RepositoryName[] = await index.listHostedRepositories(
      config.name,
      PAGE,
      last,
    );
    for (const repository of page) {
      if (isOver()) return;
      const walk = new RepositoryWalk(config, repository, options, pace);
      const isImmutable: ImmutableTags = (tag) =>
        rules.isImmutable(repository, tag);
      await walk.visitTags(rules.forRepository(repository), isImmutable, visit);
      await walk.visitUntagged(isImmutable, visit);
      await pace.step();
    }
    last = page.at(-1);
  } while (last !== undefined);
}

class RepositoryWalk {
  readonly #untaggedMs: number;
  readonly #key: RepositoryKey;
  readonly #options: WalkOptions;
  readonly #pace: Pace;

  constructor(
    config: HostedConfig,
    repository: RepositoryName,
    options: WalkOptions,
    pace: Pace,
  ) {
    this.#untaggedMs = config.retention?.untaggedMs ?? Infinity;
    this.#key = { upstream: config.name, repository };
    this.#options = options;
    this.#pace = pace;
  }

  /** Without rules only tags that are derived from a digest are visited. */
  async visitTags(
    rules: RepositoryRules | undefined,
    isImmutable: ImmutableTags,
    visit: Visit,
  ): Promise<void> {
    const { nowMs } = this.#options;
    if (rules === undefined && this.#untaggedMs === Infinity) return;
    if (rules?.needsCount === true) {
      await this.#eachTag(async (row) => rules.count(row));
    }
    await this.#eachTag(async (row) => {
      const isDerived = isReferrersTag(row.tag);
      if (rules === undefined && !isDerived) return;
      const verdict =
        isDerived && !isImmutable(row.tag)
          ? await this.#judgeDerived(row, rules)
          : rules?.judge(row, nowMs);
      const reference = { kind: "tag", tag: row.tag } as const;
      const isKept = verdict === undefined || (await this.#isPinned(reference));
      await visit(
        "tag",
        isKept
          ? undefined
          : { kind: "tag", key: this.#key, isImmutable, row, ...verdict },
      );
    });
  }

  /**
   * A signature or a list of referrers is kept with the manifest that its tag is derived from, and
   * then like a manifest without a tag. Signatures may be in a repository of their own, so that the
   * manifest may be in any hosted repository.
   */
  async #judgeDerived(
    row: HostedTag,
    rules: RepositoryRules | undefined,
  ): Promise<TagVerdict | undefined> {
    const { index, nowMs } = this.#options;
    const untaggedMs = this.#untaggedMs;
    if (nowMs - row.pushedAtMs <= untaggedMs) return undefined;
    if (rules?.isKeptDerived(row, nowMs) === true) return undefined;
    const subject = referrersTagSubject(row.tag);
    // The tag of a sha512 digest has half of its digits, which are not enough to find the manifest.
    if (subject === undefined || (await index.isHosted(subject))) {
      return undefined;
    }
    const reason = `untagged: derived from a manifest that is gone, and older than ${formatDuration(untaggedMs)}`;
    return { reason, isTimed: true };
  }

  async visitUntagged(isImmutable: ImmutableTags, visit: Visit): Promise<void> {
    const { index, nowMs, isOver } = this.#options;
    const untaggedMs = this.#untaggedMs;
    if (untaggedMs === Infinity) return;
    const reason = `untagged: for longer than ${formatDuration(untaggedMs)}`;
    let last: Digest | undefined;
    do {
      const page: readonly UntaggedManifest[] =
        await index.listUntaggedManifests(this.#key, PAGE, last);
      for (const row of page) {
        if (isOver()) return;
        const { digest } = row;
        const isDue =
          nowMs - row.untaggedAtMs > untaggedMs &&
          !(await this.#isPinned({ kind: "digest", digest }));
        await visit(
          "manifest",
          isDue
            ? {
                kind: "manifest",
                key: this.#key,
                isImmutable,
                row,
                reason,
                isTimed: true,
              }
            : undefined,
        );
        await this.#pace.step();
      }
      last = page.at(-1)?.digest;
    } while (last !== undefined);
  }

  async #isPinned(reference: Reference): Promise<boolean> {
    const root = await this.#options.index.getRoot(this.#key, reference);
    return root?.isPinned === true;
  }

  async #eachTag(visitRow: (row: HostedTag) => Promise<void>): Promise<void> {
    const { index, isOver } = this.#options;
    let last: Tag | undefined;
    do {
      const page: readonly HostedTag[] = await index.listHostedTags(
        this.#key,
        PAGE,
        last,
      );
      for (const row of page) {
        if (isOver()) return;
        await visitRow(row);
        await this.#pace.step();
      }
      last = page.at(-1)?.tag;
    } while (last !== undefined);
  }
}
