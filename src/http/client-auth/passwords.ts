import { createHmac, randomBytes } from "node:crypto";
import { LRUCache } from "lru-cache";
import {
  bcryptCost,
  type PasswordHashes,
} from "../../config/files/htpasswd.ts";
import type { Clock } from "../../telemetry/clock.ts";
import { FailureLimit } from "./failure-limits.ts";
import { addressGroup } from "./networks.ts";
import type { PasswordHasher } from "./password-hasher.ts";

export type PasswordVerdict =
  | { readonly kind: "right" }
  | { readonly kind: "wrong" }
  /** The password was not checked: too many failures, or too many waiting. */
  | { readonly kind: "limited"; readonly retryAfterMs: number };

/** bcrypt reads no more bytes: a longer password would be equal to its first 72 bytes. */
const MAX_PASSWORD_BYTES = 72;
const VERIFIED_MS = 5 * 60_000;
const MAX_VERIFIED = 4_096;

/** Failures of one user from one source in a minute. */
const FAILURES_PER_USER = 10;
/** More than for one user, so that a job with an old password does not lock out its site. */
const FAILURES_PER_ADDRESS = 30;

/** A full queue is empty again within seconds. */
const QUEUE_RETRY_MS = 2_000;

/** The bcrypt cost for unknown users if the file has no users. */
const DEFAULT_COST = 12;

/**
 * Checks passwords. A correct password is remembered for five minutes, as a keyed hash whose key
 * lives only in this process: a pull of a hundred requests costs one bcrypt comparison. A remembered
 * password is not limited by the failures of others.
 */
export class Passwords {
  readonly #hasher: PasswordHasher;
  readonly #clock: Clock;
  readonly #key = randomBytes(32);
  readonly #verifiedUntilMs = new LRUCache<string, number>({
    max: MAX_VERIFIED,
  });
  readonly #running = new Map<string, Promise<PasswordVerdict>>();
  readonly #perUser: FailureLimit;
  readonly #perAddress: FailureLimit;
  #hashes: PasswordHashes = new Map();
  #unknownCosts: readonly number[] = [DEFAULT_COST];

  constructor(options: { hasher: PasswordHasher; clock: Clock }) {
    this.#hasher = options.hasher;
    this.#clock = options.clock;
    this.#perUser = new FailureLimit(FAILURES_PER_USER, options.clock);
    this.#perAddress = new FailureLimit(FAILURES_PER_ADDRESS, options.clock);
  }

  /** Replaces the users. Removed users and old passwords are rejected immediately. */
  setHashes(hashes: PasswordHashes): void {
    this.#hashes = hashes;
    const costs = [...hashes.values()].map(bcryptCost);
    this.#unknownCosts = costs.length === 0 ? [DEFAULT_COST] : costs;
  }

  isKnown(user: string): boolean {
    return this.#hashes.has(user);
  }

  /** @param address of the client, canonical */
  async check(
    user: string,
    password: string,
    address: string,
  ): Promise<PasswordVerdict> {
    if (password === "" || Buffer.byteLength(password) > MAX_PASSWORD_BYTES) {
      return WRONG;
    }
    const stored = this.#hashes.get(user);
    // The key contains the stored hash, so that a changed file invalidates remembered passwords.
    const entry = createHmac("sha256", this.#key)
      .update(JSON.stringify([user, password, stored ?? ""]))
      .digest("base64");
    const untilMs = this.#verifiedUntilMs.get(entry);
    if (untilMs !== undefined) {
      if (untilMs > this.#clock.monotonicMs()) return RIGHT;
      this.#verifiedUntilMs.delete(entry);
    }
    const running = this.#running.get(entry);
    if (running !== undefined) return running;
    const verdict = this.#compare(user, password, stored, address, entry);
    this.#running.set(entry, verdict);
    try {
      return await verdict;
    } finally {
      this.#running.delete(entry);
    }
  }

  async #compare(
    user: string,
    password: string,
    stored: string | undefined,
    address: string,
    entry: string,
  ): Promise<PasswordVerdict> {
    const site = addressGroup(address);
    const pair = JSON.stringify([site, user]);
    const userWaitMs = this.#perUser.take(pair);
    // The password is not checked, so it is not a failure of the site.
    if (userWaitMs > 0) return { kind: "limited", retryAfterMs: userWaitMs };
    const siteWaitMs = this.#perAddress.take(site);
    if (siteWaitMs > 0) {
      this.#perUser.giveBack(pair);
      return { kind: "limited", retryAfterMs: siteWaitMs };
    }
    const giveBack = (): void => {
      this.#perUser.giveBack(pair);
      this.#perAddress.giveBack(site);
    };
    const comparison = this.#hasher.compare(
      password,
      stored ?? this.#unknownUsersHash(user),
    );
    if (comparison === undefined) {
      giveBack();
      return { kind: "limited", retryAfterMs: QUEUE_RETRY_MS };
    }
    const isSame = await comparison.catch((error: unknown) => {
      // The client learnt nothing about the password.
      giveBack();
      throw error;
    });
    // Unknown users take the same path and the same time.
    if (!isSame || stored === undefined) return WRONG;
    giveBack();
    // The file may have changed in the meantime.
    if (this.#hashes.get(user) !== stored) return WRONG;
    this.#verifiedUntilMs.set(entry, this.#clock.monotonicMs() + VERIFIED_MS);
    return RIGHT;
  }

  /**
   * Returns a hash that matches no password. Its cost is that of a hash in the file, always the same
   * for the same name: with the highest cost for all, the time would reveal who is not in the file.
   */
  #unknownUsersHash(user: string): string {
    const drawn = createHmac("sha256", this.#key).update(user).digest();
    const costs = this.#unknownCosts;
    const cost = costs[drawn.readUInt32BE() % costs.length] ?? DEFAULT_COST;
    return `$2b$${String(cost).padStart(2, "0")}$${".".repeat(53)}`;
  }
}

const RIGHT: PasswordVerdict = { kind: "right" };
const WRONG: PasswordVerdict = { kind: "wrong" };
