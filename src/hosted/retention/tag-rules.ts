import type {
  HostedConfig,
  HostedRetentionConfig,
} from "../../config/config.ts";
import { formatDuration } from "../../config/schema/units.ts";
import { compilePattern, compileRepositoryPattern } from "../../oci/glob.ts";
import {
  isReferrersTag,
  type RepositoryName,
  type Tag,
} from "../../oci/reference.ts";
import type { HostedTag } from "../../storage/hosted-index.ts";
import { NewestTags } from "./newest-tags.ts";

type RuleConfig = HostedRetentionConfig["rules"][number];

interface CompiledRule {
  readonly config: RuleConfig;
  readonly coversRepository: (repository: RepositoryName) => boolean;
  readonly covers: (repository: RepositoryName, tag: Tag) => boolean;
  readonly isKeptTag: (tag: Tag) => boolean;
  /** The reason for a deletion by this rule, as the operator reads it. */
  readonly reason: string;
}

/** The reason why a tag is deleted. */
export interface TagVerdict {
  readonly reason: string;
  /** Whether age decided, so that a wrong clock leads to a wrong decision. */
  readonly isTimed: boolean;
}

/** The compiled retention of one hosted registry. */
export class TagRules {
  readonly isImmutable: (repository: RepositoryName, tag: Tag) => boolean;
  readonly #rules: readonly CompiledRule[];

  constructor({ immutableTags, retention }: HostedConfig) {
    const immutable = immutableTags.map(compilePattern);
    this.isImmutable = (repository, tag) =>
      immutable.some((covers) => covers(repository, tag));
    this.#rules = (retention?.rules ?? []).map(compileRule);
  }

  /** @returns undefined if no rule covers a tag of the repository */
  forRepository(repository: RepositoryName): RepositoryRules | undefined {
    const rules = this.#rules.filter(({ coversRepository }) =>
      coversRepository(repository),
    );
    return rules.length === 0
      ? undefined
      : new RepositoryRules(repository, rules, (tag) =>
          this.isImmutable(repository, tag),
        );
  }
}

/** Decides on the tags of one repository: the caller first counts all of them, then judges each. */
export class RepositoryRules {
  readonly isImmutable: (tag: Tag) => boolean;
  readonly #repository: RepositoryName;
  readonly #rules: readonly CompiledRule[];
  readonly #newest = new Map<CompiledRule, NewestTags>();

  constructor(
    repository: RepositoryName,
    rules: readonly CompiledRule[],
    isImmutable: (tag: Tag) => boolean,
  ) {
    this.#repository = repository;
    this.#rules = rules;
    this.isImmutable = isImmutable;
    for (const rule of rules) {
      const { keepNewest } = rule.config;
      if (keepNewest !== undefined)
        this.#newest.set(rule, new NewestTags(keepNewest));
    }
  }

  /** Whether every tag of the repository must be counted before {@link judge} is called. */
  get needsCount(): boolean {
    return this.#newest.size > 0;
  }

  /** Tags that are derived from a digest are not counted: they belong to another tag. */
  count(row: HostedTag): void {
    if (isReferrersTag(row.tag)) return;
    const rule = this.#find(row.tag);
    if (rule !== undefined) this.#newest.get(rule)?.add(row);
  }

  /** @returns undefined if the tag is kept */
  judge(row: HostedTag, nowMs: number): TagVerdict | undefined {
    const rule = this.#find(row.tag);
    if (rule === undefined || this.isImmutable(row.tag)) return undefined;
    if (this.#newest.get(rule)?.has(row) === true) return undefined;
    if (isKept(rule, row, nowMs)) return undefined;
    const isTimed = rule.config.keepPulledWithinMs !== undefined;
    return { reason: rule.reason, isTimed };
  }

  /** Returns whether a rule keeps a tag that is derived from a digest, if its manifest is gone. */
  isKeptDerived(row: HostedTag, nowMs: number): boolean {
    const rule = this.#find(row.tag);
    return rule !== undefined && isKept(rule, row, nowMs);
  }

  #find(tag: Tag): CompiledRule | undefined {
    return this.#rules.find(({ covers }) => covers(this.#repository, tag));
  }
}

/** Returns whether the rule keeps the tag because of its pulls or its name. */
function isKept(rule: CompiledRule, row: HostedTag, nowMs: number): boolean {
  const { keepPulledWithinMs = -Infinity } = rule.config;
  const idleMs = nowMs - Math.max(row.pulledAtMs, row.pushedAtMs);
  return idleMs <= keepPulledWithinMs || rule.isKeptTag(row.tag);
}

function compileRule(config: RuleConfig): CompiledRule {
  const { match, keepNewest, keepPulledWithinMs, keepTags } = config;
  const coversRepository = compileRepositoryPattern(match);
  const kept = keepTags.map((glob) => compilePattern(`**:${glob}`));
  const reasons = [
    keepNewest === undefined ? [] : [`not among the newest ${keepNewest}`],
    keepPulledWithinMs === undefined
      ? []
      : [`not pulled within ${formatDuration(keepPulledWithinMs)}`],
    keepTags.length === 0 ? [] : [`matches none of ${keepTags.join(", ")}`],
  ].flat();
  return {
    config,
    coversRepository: (repository) => coversRepository(repository, undefined),
    covers: compilePattern(match),
    isKeptTag: (tag) => kept.some((covers) => covers("any", tag)),
    reason: `${match}: ${reasons.join("; ") || "keeps no tag"}`,
  };
}
