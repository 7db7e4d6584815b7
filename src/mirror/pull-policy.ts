import type { UpstreamConfig } from "../config/config.ts";
import { compilePattern, compileRepositoryPattern } from "../oci/glob.ts";
import type { Reference, RepositoryName } from "../oci/reference.ts";

/**
 * Decides whether content may be pulled through the mirror.
 *
 * @param reference undefined for lists of tags and referrers
 */
export type PullPolicy = (
  repository: RepositoryName,
  reference: Reference | undefined,
) => boolean;

/**
 * Builds the policy of `allow` and `deny`. A tag passes if a pattern of `allow` covers it and none of
 * `deny` does. A request without a tag passes if the repository of any `allow` pattern matches,
 * because the digest of an allowed tag must be pullable; only `deny` patterns without a tag apply to
 * it. An empty `allow` allows everything.
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
