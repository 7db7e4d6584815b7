import { createHmac, randomBytes } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { AccessAction, TokenServerConfig } from "../../config/config.ts";
import type { TokenKey } from "../../config/files/token-keys.ts";
import type { Clock } from "../../telemetry/clock.ts";
import type { Identity, TokenGrants } from "./identity.ts";
import { libtrustKeyId } from "./libtrust-key-id.ts";

/** Public-key algorithms only: with HS256, a public key could be used as a shared secret. */
const ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
];
/** Tolerated difference of two clocks. */
const LEEWAY_SECONDS = 30;
/** Tokens that are issued further in the future are rejected. */
const MAX_ISSUED_AHEAD_SECONDS = 60;
const MAX_VERIFIED = 4_096;
/** A valid token is verified again after this time, or when it expires. */
const VERIFIED_MS = 5 * 60_000;
const MAX_GRANTS = 64;

type TokenIdentity = Identity & { kind: "token" };

/** Maps a name as clients spell it to `upstream/repository`; undefined if no upstream matches. */
export type CanonicalName = (spelled: string) => string | undefined;

interface Verified {
  readonly identity: TokenIdentity;
  readonly untilMs: number;
}

/**
 * Verifies bearer tokens of a Docker or Distribution token server: JWTs that are signed by a
 * configured key. Keys in a token, or that it refers to, are ignored.
 *
 * @see https://distribution.github.io/distribution/spec/auth/jwt/
 */
export class Tokens {
  readonly #config: TokenServerConfig;
  readonly #canonicalName: CanonicalName;
  readonly #clock: Clock;
  readonly #key = randomBytes(32);
  readonly #verified = new LRUCache<string, Verified>({ max: MAX_VERIFIED });
  #keys: readonly (TokenKey & { readonly ids: readonly string[] })[] = [];

  constructor(options: {
    config: TokenServerConfig;
    canonicalName: CanonicalName;
    clock: Clock;
  }) {
    this.#config = options.config;
    this.#canonicalName = options.canonicalName;
    this.#clock = options.clock;
  }

  /** Replaces the keys. Tokens signed by other keys are rejected immediately. */
  setKeys(keys: readonly TokenKey[]): void {
    this.#keys = keys.map((key) => ({
      ...key,
      // The id that Distribution's token servers give to the key of a certificate.
      ids: key.id === undefined ? [libtrustKeyId(key.key)] : [key.id],
    }));
    this.#verified.clear();
  }

  /** @returns undefined if the token is not valid, for any reason */
  async check(token: string): Promise<TokenIdentity | undefined> {
    const entry = createHmac("sha256", this.#key)
      .update(token)
      .digest("base64");
    const known = this.#verified.get(entry);
    if (known !== undefined) {
      if (known.untilMs > this.#clock.nowMs()) return known.identity;
      this.#verified.delete(entry);
    }
    const keys = this.#keys;
    const claims = await this.#verify(token);
    if (claims === undefined || keys !== this.#keys) return undefined;
    const identity: TokenIdentity = {
      kind: "token",
      name: typeof claims["sub"] === "string" ? claims["sub"] : "",
      grants: this.#readGrants(claims["access"]),
    };
    const endMs = Number(claims["exp"]) * 1_000;
    this.#verified.set(entry, {
      identity,
      untilMs: Math.min(endMs, this.#clock.nowMs() + VERIFIED_MS),
    });
    return identity;
  }

  async #verify(token: string): Promise<Record<string, unknown> | undefined> {
    const { jwtVerify, decodeProtectedHeader } = await import("jose");
    let header;
    try {
      header = decodeProtectedHeader(token);
    } catch {
      return undefined;
    }
    const { kid, alg } = header;
    const { issuer, service } = this.#config;
    for (const { key, ids, algorithm } of this.#keys) {
      if (kid !== undefined && !ids.includes(kid)) continue;
      if (algorithm !== undefined && algorithm !== alg) continue;
      try {
        const { payload } = await jwtVerify(token, key, {
          algorithms: ALGORITHMS,
          issuer,
          audience: service,
          requiredClaims: ["exp", "iat"],
          clockTolerance: LEEWAY_SECONDS,
          currentDate: new Date(this.#clock.nowMs()),
        });
        const nowSeconds = this.#clock.nowMs() / 1_000;
        return Number(payload.iat) - nowSeconds > MAX_ISSUED_AHEAD_SECONDS
          ? undefined
          : payload;
      } catch {
        // Another key may have signed it.
      }
    }
    return undefined;
  }

  #readGrants(access: unknown): TokenGrants {
    const repositories = new Map<string, Set<AccessAction>>();
    let catalog = false;
    const claims: unknown[] = Array.isArray(access) ? access : [];
    for (const claim of claims.slice(0, MAX_GRANTS)) {
      if (typeof claim !== "object" || claim === null) continue;
      const { type, name, actions } = claim as Record<string, unknown>;
      if (typeof name !== "string" || !Array.isArray(actions)) continue;
      if (type === "registry") {
        catalog ||= name === "catalog" && actions.includes("*");
      }
      if (type !== "repository") continue;
      const canonical = this.#canonicalName(name);
      if (canonical === undefined) continue;
      const held = repositories.get(canonical) ?? new Set();
      for (const action of ACTIONS) {
        if (actions.includes(action) || actions.includes("*")) held.add(action);
      }
      repositories.set(canonical, held);
    }
    return { repositories, catalog };
  }
}

const ACTIONS: readonly AccessAction[] = ["pull", "push", "delete"];
