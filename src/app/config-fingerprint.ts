import { createHash } from "node:crypto";
import { Secret } from "../config/config.ts";

/** Hashes a part of the configuration with its secrets, which can't be read from the result. */
export function fingerprintOf(part: unknown): string {
  const text = JSON.stringify(part, function (this: unknown, key, value) {
    // JSON.stringify calls the secret's toJSON before this function.
    const held = (this as Record<string, unknown>)[key];
    if (held instanceof Secret) return held.reveal();
    return held instanceof Map ? [...held] : (value as unknown);
  });
  return createHash("sha256").update(text).digest("base64");
}
