import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hashSync } from "bcryptjs";
import { SignJWT } from "jose";
import type {
  AccessConfig,
  TokenServerConfig,
} from "../../src/config/config.ts";
import type { AfterTest } from "./after-test.ts";
import { tempDir } from "./temp-dir.ts";

/** The minimum of bcrypt, because tests log in often. */
const TEST_COST = 4;

/** Returns one line for each user. */
export function htpasswdText(
  passwords: Readonly<Record<string, string>>,
  cost: number = TEST_COST,
): string {
  return Object.entries(passwords)
    .map(([user, password]) => `${user}:${hashSync(password, cost)}\n`)
    .join("");
}

/** Writes a file of users into a temporary folder. */
export async function writeHtpasswd(
  test: AfterTest,
  passwords: Readonly<Record<string, string>>,
): Promise<string> {
  const file = join(await tempDir(test, "htpasswd-"), "htpasswd");
  await writeFile(file, htpasswdText(passwords), { mode: 0o600 });
  return file;
}

/** Returns `access` as the loader makes it from an empty mapping. */
export function accessConfig(
  overrides: Partial<AccessConfig> = {},
): AccessConfig {
  return {
    htpasswdFile: undefined,
    tokenServer: undefined,
    anonymous: "pull",
    anonymousNetworks: [],
    rules: [],
    ...overrides,
  };
}

/** The value of `Authorization`. */
export function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

export interface TokenAccess {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

/** An issuer that signs tokens, and the mirror's configuration for it. */
export interface TokenIssuer {
  readonly config: TokenServerConfig;
  readonly publicKey: KeyObject;
  /** Claims and header as given, over those of a good token of five minutes. */
  sign(
    access: readonly TokenAccess[],
    claims?: Readonly<Record<string, unknown>>,
    header?: Readonly<Record<string, unknown>>,
  ): Promise<string>;
}

export async function startTokenIssuer(
  test: AfterTest,
  nowMs: () => number = Date.now,
): Promise<TokenIssuer> {
  const { publicKey, privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
  });
  const file = join(await tempDir(test, "keys-"), "jwks.json");
  const jwk = { ...publicKey.export({ format: "jwk" }), kid: "k1" };
  await writeFile(file, JSON.stringify({ keys: [jwk] }));
  const config: TokenServerConfig = {
    realm: "https://auth.example/token",
    service: "mirror.example",
    issuer: "auth.example",
    keys: { kind: "jwks", file },
  };
  return {
    config,
    publicKey,
    sign: (access, claims = {}, header = {}) => {
      const now = Math.floor(nowMs() / 1000);
      return new SignJWT({
        iss: config.issuer,
        aud: config.service,
        sub: "carol",
        iat: now,
        nbf: now,
        exp: now + 300,
        access,
        ...claims,
      })
        .setProtectedHeader({ alg: "ES256", kid: "k1", ...header })
        .sign(privateKey);
    },
  };
}
