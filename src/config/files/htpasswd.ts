/** Passwords' hashes by user. */
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

/** 2^14 rounds are a second and more: what is above would be a way to wear the mirror down. */
export const MAX_BCRYPT_COST = 14;

/** The least that bcrypt has. */
const MIN_BCRYPT_COST = 4;

const MAX_USERS = 10_000;

/** `$2y$` of Apache, `$2b$` of everybody else and the older `$2a$` are the same for us. */
const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/;

const HOW_TO = "USER:HASH as `entrepot passwd USER` or `htpasswd -B` prints it";

/**
 * Reads the text of an htpasswd file: bcrypt only. Empty lines and those that begin with `#` say
 * nothing. Never throws.
 */
export function parseHtpasswd(text: string): ParsedHtpasswd {
  const hashes = new Map<string, string>();
  for (const [index, raw] of text.split("\n").entries()) {
    const written = raw.trimEnd();
    if (written.trim() === "" || written.startsWith("#")) continue;
    const refuse = (seen: string, expected: string): ParsedHtpasswd => ({
      ok: false,
      line: index + 1,
      seen,
      expected,
    });
    const colonAt = written.indexOf(":");
    if (colonAt < 1) return refuse("no USER:HASH", HOW_TO);
    const user = written.slice(0, colonAt);
    const hash = written.slice(colonAt + 1);
    const found = BCRYPT.exec(hash);
    if (found === null) return refuse("a hash that is no bcrypt", HOW_TO);
    const cost = Number(found[1]);
    if (cost < MIN_BCRYPT_COST || cost > MAX_BCRYPT_COST) {
      return refuse(
        `bcrypt of cost ${cost}`,
        `a cost from ${MIN_BCRYPT_COST} to ${MAX_BCRYPT_COST}`,
      );
    }
    if (hashes.has(user)) return refuse("a user again", "each user once");
    if (hashes.size === MAX_USERS) {
      return refuse("one user more", `at most ${MAX_USERS} users`);
    }
    hashes.set(user, hash);
  }
  return { ok: true, hashes };
}

/** The cost that a bcrypt hash was made with. */
export function bcryptCost(hash: string): number {
  return Number(hash.slice(4, 6));
}
