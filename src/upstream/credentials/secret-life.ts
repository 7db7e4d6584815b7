import { parseJsonObject } from "../../oci/json-object.ts";

/** For secrets without an expiry time: Google's last an hour, and their helper may return one near its end. */
const DEFAULT_LIFE_MS = 300_000;
const MIN_LIFE_MS = 60_000;
/** The lifetime of Amazon ECR's secrets, the longest of any helper. */
const MAX_LIFE_MS = 12 * 3_600_000;
/** The part of its lifetime for which a secret is used: ECR's are renewed more than an hour early. */
const USED_LIFE = 0.9;
const MAX_SECRET_LENGTH = 65_536;

export interface SecretLife {
  /** How long the secret is used without running the helper again. */
  readonly renewAfterMs: number;
  /** The secret is invalid after this time; Infinity if unknown. */
  readonly expiresAfterMs: number;
}

/**
 * Returns how long a helper's secret is used. The protocol does not state it, but secrets that expire
 * contain the time: a JWT as `exp` (Azure), ECR's base64 of JSON as `expiration`.
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
