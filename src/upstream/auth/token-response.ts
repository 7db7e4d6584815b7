import { parseJsonObject } from "../../oci/json-object.ts";

export interface BearerToken {
  readonly token: string;
  readonly lifeMs: number;
}

/** The lifetime if `expires_in` is absent, and the shortest that the specification allows. */
const MIN_LIFE_MS = 60_000;
/** The longest lifetime that is used, whatever `expires_in` says. */
const MAX_LIFE_MS = 3_600_000;
/** A token must fit into a header. */
const MAX_TOKEN_LENGTH = 16_384;
/** Characters that are allowed in a header value, without blanks. */
const TOKEN = /^[\x21-\x7e]+$/;

/**
 * Parses the answer of a token server; undefined if it holds no valid token. `access_token` goes before
 * `token`, as in Docker.
 */
export function parseTokenResponse(body: Buffer): BearerToken | undefined {
  const fields = parseJsonObject(body.toString("utf8"));
  if (fields === undefined) return undefined;
  const token =
    asToken(fields.get("access_token")) ?? asToken(fields.get("token"));
  return token === undefined
    ? undefined
    : { token, lifeMs: toLifeMs(fields.get("expires_in")) };
}

function asToken(value: unknown): string | undefined {
  return typeof value === "string" &&
    value.length <= MAX_TOKEN_LENGTH &&
    TOKEN.test(value)
    ? value
    : undefined;
}

function toLifeMs(expiresIn: unknown): number {
  // Number() throws for an object whose toString is not a function.
  const isNumeric =
    typeof expiresIn === "number" || typeof expiresIn === "string";
  const lifeMs = isNumeric ? Number(expiresIn) * 1_000 : Number.NaN;
  return Number.isNaN(lifeMs)
    ? MIN_LIFE_MS
    : Math.min(Math.max(lifeMs, MIN_LIFE_MS), MAX_LIFE_MS);
}
