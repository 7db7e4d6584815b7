import type { UpstreamConfig } from "../config/config.ts";
import { compilePattern, compileRepositoryPattern } from "../oci/glob.ts";
import type { Reference, RepositoryName } from "../oci/reference.ts";

/**
 * Whether something may be pulled through the mirror.
 *
 * @param reference undefined for what is no single image: lists of tags and referrers
 */
export type PullPolicy = (
  repository: RepositoryName,
  reference: Reference | undefined,
) => boolean;

/**
 * A tag passes when a pattern of `allow` covers it and none of `deny` does. What has no tag passes
 * where the repository of any `allow` pattern matches, for the digest of an allowed tag has to be
 * pullable; it is caught by those `deny` patterns only that name no tag. No `allow` allows all.
 *
 * @see design.md section 3
 */
export function createPullPolicy({
  allow,
  deny,
}: Pick<UpstreamConfig, "allow" | "deny">): PullPolicy {
  const allowed = allow.map(compilePattern);
  const allowedRepositories = allow.map(compileRepositoryPattern);
  const denied = deny.map(compilePattern);
  return (repository, reference) => {
    const tag = reference?.kind === "tag" ? reference.tag : undefined;
    const isAllowed =
      allow.length === 0 ||
      (tag === undefined
        ? allowedRepositories.some((covers) => covers(repository, undefined))
        : allowed.some((covers) => covers(repository, tag)));
    return isAllowed && !denied.some((covers) => covers(repository, tag));
  };
}
