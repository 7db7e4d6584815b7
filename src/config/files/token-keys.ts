import { createPublicKey, type KeyObject } from "node:crypto";
import type { Flaw } from "../fault.ts";
import { parseCertificates } from "./certificates.ts";
import type { TokenServerConfig } from "../config.ts";
import { readTextFile, seenIn } from "./files.ts";
import { findChangeFlaw } from "./secret-file.ts";

/** A public key that may sign tokens. */
export interface TokenKey {
  readonly key: KeyObject;
  /** `kid`; a token that names another key is not tried with this one. */
  readonly id: string | undefined;
  /** The only algorithm that it may be used with; undefined: any that fits its kind. */
  readonly algorithm: string | undefined;
}

export type ReadTokenKeys =
  | { readonly ok: true; readonly keys: readonly TokenKey[] }
  | ({ readonly ok: false } & Flaw);

const MAX_FILE_BYTES = 1_048_576;
/** A token without a key ID is tried with each of them. */
const MAX_KEYS = 16;

/** Reads the keys of a token server from a file. Never throws; rejects secret keys. */
export async function readTokenKeys({
  kind,
  file,
}: TokenServerConfig["keys"]): Promise<ReadTokenKeys> {
  const expected =
    kind === "jwks"
      ? `a JSON Web Key Set of 1 to ${MAX_KEYS} public keys`
      : `1 to ${MAX_KEYS} PEM certificates`;
  const reject = (seen: string): ReadTokenKeys => ({
    ok: false,
    seen: seenIn(file, seen),
    expected,
  });
  const read = await readTextFile(file, MAX_FILE_BYTES);
  if (!read.isRead) return reject(read.seen);
  const flaw = findChangeFlaw(read, file);
  if (flaw !== undefined) return { ok: false, ...flaw };
  const keys = kind === "jwks" ? parseJwks(read.text) : parsePem(read.text);
  if (typeof keys === "string") return reject(keys);
  if (keys.length === 0) return reject("no keys");
  if (keys.length > MAX_KEYS) return reject("too many keys");
  return { ok: true, keys };
}

function parsePem(text: string): readonly TokenKey[] | string {
  const found = parseCertificates(text);
  if (typeof found === "string") return found;
  try {
    return found.map(({ certificate }) => ({
      key: certificate.publicKey,
      id: undefined,
      algorithm: undefined,
    }));
  } catch {
    return "an invalid certificate";
  }
}

function parseJwks(text: string): readonly TokenKey[] | string {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return "invalid JSON";
  }
  const list = fieldOf(document, "keys");
  if (!Array.isArray(list)) return "no list of keys";
  const keys: TokenKey[] = [];
  for (const entry of list as unknown[]) {
    if (typeof entry !== "object" || entry === null)
      return "a key that is not a mapping";
    if (fieldOf(entry, "use") === "enc") continue;
    // An octet sequence is a shared secret, and `d` the private half of a pair.
    if (fieldOf(entry, "kty") === "oct" || fieldOf(entry, "d") !== undefined) {
      return "a secret key";
    }
    const id = fieldOf(entry, "kid");
    const algorithm = fieldOf(entry, "alg");
    try {
      keys.push({
        key: createPublicKey({ key: entry, format: "jwk" }),
        id: typeof id === "string" ? id : undefined,
        algorithm: typeof algorithm === "string" ? algorithm : undefined,
      });
    } catch {
      return "an invalid key";
    }
  }
  return keys;
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)[name]
    : undefined;
}
