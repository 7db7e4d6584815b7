/** Hashes of passwords, by user. */
export type PasswordHashes = ReadonlyMap<string, string>;

export type ParsedHtpasswd =
  | { readonly ok: true; readonly hashes: PasswordHashes }
  | {
      readonly ok: false;
      /** From 1. */
      readonly line: number;
      /** Never holds a part of a hash or a password. */
      readonly seen: string;
      readonly expected: string;
    };

/** 2^14 rounds take more than a second; a higher cost would let clients exhaust the CPU. */
export const MAX_BCRYPT_COST = 14;

/** The lowest cost of bcrypt. */
const MIN_BCRYPT_COST = 4;

const MAX_USERS = 10_000;

/** `$2y$` (Apache), `$2b$` (current) and the older `$2a$` are equivalent here. */
const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/;

const HOW_TO = "USER:HASH as `entrepot passwd USER` or `htpasswd -B` prints it";

/** Parses an htpasswd file: bcrypt only. Ignores empty lines and lines that begin with `#`. Never throws. */
export function parseHtpasswd(text: string): ParsedHtpasswd {
  const hashes = new Map<string, string>();
  for (const [index, raw] of text.split("\n").entries()) {
    const written = raw.trimEnd();
    if (written.trim() === "" || written.startsWith("#")) continue;
    const reject = (seen: string, expected: string): ParsedHtpasswd => ({
      ok: false,
      line: index + 1,
      seen,
      expected,
    });
    const colonAt = written.indexOf(":");
    if (colonAt < 1) return reject("a line without a user or a hash", HOW_TO);
    const user = written.slice(0, colonAt);
    const hash = written.slice(colonAt + 1);
    const found = BCRYPT.exec(hash);
    if (found === null) return reject("a hash that is not bcrypt", HOW_TO);
    const cost = Number(found[1]);
    if (cost < MIN_BCRYPT_COST || cost > MAX_BCRYPT_COST) {
      return reject(
        `bcrypt of cost ${cost}`,
        `a cost from ${MIN_BCRYPT_COST} to ${MAX_BCRYPT_COST}`,
      );
    }
    if (hashes.has(user)) return reject("a user twice", "each user once");
    if (hashes.size === MAX_USERS) {
      return reject("too many users", `at most ${MAX_USERS} users`);
    }
    hashes.set(user, hash);
  }
  return { ok: true, hashes };
}

/** Returns the cost of a bcrypt hash. */
export function bcryptCost(hash: string): number {
  return Number(hash.slice(4, 6));
}
