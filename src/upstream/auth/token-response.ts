import { parseJsonObject } from "../../oci/json-object.ts";

export interface BearerToken {
  readonly token: string;
  readonly lifeMs: number;
}

/** What is meant where `expires_in` is absent, and the least that anybody should give. */
const MIN_LIFE_MS = 60_000;
/** A token is not trusted longer, whatever it says of itself. */
const MAX_LIFE_MS = 3_600_000;
/** It has to fit into a header. */
const MAX_TOKEN_LENGTH = 16_384;
/** Whatever may stand in a header's value without a blank. */
const TOKEN = /^[\x21-\x7e]+$/;

/**
 * Reads a token server's answer: `access_token` before `token`, as Docker does.
 *
 * @returns undefined where there is no token in it
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
  // An object whose toString is no function would make Number() throw.
  const isNumeric =
    typeof expiresIn === "number" || typeof expiresIn === "string";
  const lifeMs = isNumeric ? Number(expiresIn) * 1_000 : Number.NaN;
  return Number.isNaN(lifeMs)
    ? MIN_LIFE_MS
    : Math.min(Math.max(lifeMs, MIN_LIFE_MS), MAX_LIFE_MS);
}
