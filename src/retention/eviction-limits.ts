import type { RoomLimits } from "./room-limits.ts";
import type { EvictionConfig } from "../config/config.ts";
import { compilePattern } from "../oci/glob.ts";

/** Returns the configured limits with compiled patterns. */
export function createRoomLimits(config: EvictionConfig): RoomLimits {
  const patterns = config.keep.map(compilePattern);
  return {
    maxSize: config.maxSize,
    minFree: config.minFree,
    maxIdleMs: config.maxIdleMs,
    isKept: ({ key, reference }) =>
      patterns.some((matches) =>
        matches(
          `${key.upstream}/${key.repository}`,
          reference.kind === "tag" ? reference.tag : undefined,
        ),
      ),
  };
}
