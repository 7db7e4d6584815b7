import type { HostedConfig } from "../config/config.ts";
import { compilePattern } from "../oci/glob.ts";
import {
  type ImmutableTags,
  NOTHING_IMMUTABLE,
} from "../storage/hosted-index.ts";
import type { HostedRepository } from "./hosted.ts";

type Matcher = ReturnType<typeof compilePattern>;

const matchersOf = new WeakMap<HostedConfig, readonly Matcher[]>();

/** Returns a function that reports whether a tag of the repository is immutable: neither moved nor deleted. */
export function immutableTags({
  key,
  config,
}: HostedRepository): ImmutableTags {
  let matchers = matchersOf.get(config);
  if (matchers === undefined) {
    matchers = config.immutableTags.map(compilePattern);
    matchersOf.set(config, matchers);
  }
  if (matchers.length === 0) return NOTHING_IMMUTABLE;
  const compiled = matchers;
  return (tag) => compiled.some((matches) => matches(key.repository, tag));
}
