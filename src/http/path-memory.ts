import { LRUCache } from "lru-cache";
import { type ParsedPath, parseDistributionPath } from "../oci/path.ts";

/** Of 2 KiB at most, and a few objects each. */
const MAX_PATHS = 1_000;

/** Longer ones have a query that few repeat. */
const MAX_REMEMBERED_LENGTH = 2_048;

/**
 * {@link parseDistributionPath}, which costs more than all else that is done with a path, for
 * targets that come again and again.
 */
export function createPathParser(): (rawTarget: string) => ParsedPath {
  const parsed = new LRUCache<string, ParsedPath>({ max: MAX_PATHS });
  return (rawTarget) => {
    const known = parsed.get(rawTarget);
    if (known !== undefined) return known;
    const path = parseDistributionPath(rawTarget);
    // What was refused is not kept: it would push out what is asked for.
    if (path.ok && rawTarget.length <= MAX_REMEMBERED_LENGTH) {
      parsed.set(rawTarget, path);
    }
    return path;
  };
}
