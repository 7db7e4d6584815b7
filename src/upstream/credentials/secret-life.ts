import { parseJsonObject } from "../../oci/json-object.ts";

/** Where a secret does not tell its end: Google's last an hour, and their helper gives them late in it. */
const DEFAULT_LIFE_MS = 300_000;
const MIN_LIFE_MS = 60_000;
/** Of Amazon's ECR, the longest that any helper gives. */
const MAX_LIFE_MS = 12 * 3_600_000;
/** Renewed when so much of its life is over, an hour and more before the end for ECR. */
const USED_LIFE = 0.9;
const MAX_SECRET_LENGTH = 65_536;

export interface SecretLife {
  /** It may be kept for so long without asking again. */
  readonly renewAfterMs: number;
  /** It is worth nothing after; Infinity where that is not known. */
  readonly expiresAfterMs: number;
}

/**
 * How long what a helper gave may be kept. Its protocol has no word for that, but secrets that
 * expire tell it themselves: a JWT by `exp` (Azure), ECR's, base64 of JSON, by `expiration`.
 */
export function lifeOfSecret(secret: string, nowMs: number): SecretLife {
  const expiresAtMs = findExpiry(secret);
  if (expiresAtMs === undefined) {
    return { renewAfterMs: DEFAULT_LIFE_MS, expiresAfterMs: Infinity };
  }
  const leftMs = Math.min(Math.max(expiresAtMs - nowMs, 0), MAX_LIFE_MS);
  return {
    renewAfterMs: Math.max(leftMs * USED_LIFE, MIN_LIFE_MS),
    expiresAfterMs: leftMs,
  };
}

function findExpiry(secret: string): number | undefined {
  if (secret.length > MAX_SECRET_LENGTH) return undefined;
  const [, claims] = secret.split(".");
  const encoded = Buffer.from(claims ?? secret, "base64url");
  const fields = parseJsonObject(encoded.toString("utf8"));
  const seconds = fields?.get(claims === undefined ? "expiration" : "exp");
  return typeof seconds === "number" && Number.isFinite(seconds)
    ? seconds * 1_000
    : undefined;
}
