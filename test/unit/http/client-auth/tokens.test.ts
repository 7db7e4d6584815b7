import assert from "node:assert/strict";
import {
  createHmac,
  createPrivateKey,
  generateKeyPairSync,
  X509Certificate,
} from "node:crypto";
import { describe, it } from "node:test";
import { SignJWT } from "jose";
import { parseAuthorization } from "../../../../src/http/client-auth/credentials.ts";
import { libtrustKeyId } from "../../../../src/http/client-auth/libtrust-key-id.ts";
import { Tokens } from "../../../../src/http/client-auth/tokens.ts";
import { startTokenIssuer, type TokenIssuer } from "../../../support/access.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import { createCertificateAuthority } from "../../../support/certificate-authority.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const PULL = [
  { type: "repository", name: "library/alpine", actions: ["pull"] },
];

async function open(
  test: AfterTest,
): Promise<{ clock: FakeClock; issuer: TokenIssuer; tokens: Tokens }> {
  const clock = new FakeClock();
  const issuer = await startTokenIssuer(test, () => clock.nowMs());
  const tokens = new Tokens({
    config: issuer.config,
    canonicalName: (name) =>
      name.startsWith("unknown") ? undefined : `docker.io/${name}`,
    clock,
  });
  tokens.setKeys([{ key: issuer.publicKey, id: "k1", algorithm: undefined }]);
  return { clock, issuer, tokens };
}

void describe("a bearer token", () => {
  void it("that is valid gives the user and the allowed actions by canonical repository names", async (test) => {
    const { issuer, tokens } = await open(test);
    const identity = await tokens.check(
      await issuer.sign([
        ...PULL,
        { type: "repository", name: "library/alpine", actions: ["push"] },
        { type: "repository", name: "a", actions: ["*"] },
        { type: "repository", name: "unknown", actions: ["pull"] },
        { type: "repository(plugin)", name: "b", actions: ["pull"] },
        { type: "registry", name: "catalog", actions: ["*"] },
      ]),
    );
    assert.ok(identity);
    assert.equal(identity.name, "carol");
    assert.deepEqual(
      [...identity.grants.repositories],
      [
        ["docker.io/library/alpine", new Set(["pull", "push"])],
        ["docker.io/a", new Set(["pull", "push", "delete"])],
      ],
    );
    assert.equal(identity.grants.catalog, true);
  });

  void it("allows nothing by claims of other shapes", async (test) => {
    const { issuer, tokens } = await open(test);
    for (const access of [
      undefined,
      "pull",
      [
        null,
        1,
        "x",
        [],
        {},
        { type: "repository", name: 1, actions: ["pull"] },
      ],
      [{ type: "repository", name: "a", actions: "pull" }],
      [{ type: "repository", name: "__proto__", actions: ["constructor"] }],
      [{ type: "registry", name: "catalog", actions: ["pull"] }],
    ]) {
      const identity = await tokens.check(
        await issuer.sign([], { access, sub: undefined }),
      );
      assert.ok(identity);
      assert.equal(identity.name, "");
      assert.equal(identity.grants.catalog, false);
      for (const held of identity.grants.repositories.values()) {
        assert.equal(held.size, 0);
      }
    }
  });

  void it("is refused after its expiry, although it was valid before", async (test) => {
    const { clock, issuer, tokens } = await open(test);
    const token = await issuer.sign(PULL);
    assert.ok(await tokens.check(token));
    clock.advance(299_000);
    assert.ok(await tokens.check(token));
    // 30 s for clocks that differ.
    clock.advance(32_000);
    assert.equal(await tokens.check(token), undefined);
  });

  void it("issued up to a minute in the future is valid: clocks differ", async (test) => {
    const { clock, issuer, tokens } = await open(test);
    const now = Math.floor(clock.nowMs() / 1000);
    assert.ok(await tokens.check(await issuer.sign(PULL, { iat: now + 60 })));
  });

  void it("is refused once its key has been removed", async (test) => {
    const { issuer, tokens } = await open(test);
    const token = await issuer.sign(PULL);
    assert.ok(await tokens.check(token));
    tokens.setKeys([]);
    assert.equal(await tokens.check(token), undefined);
  });

  const faults: Readonly<
    Record<string, (issuer: TokenIssuer, nowS: number) => Promise<string>>
  > = {
    "alg none": (_, now) =>
      Promise.resolve(unsigned({ alg: "none", kid: "k1" }, good(now))),
    "alg none in capitals": (_, now) =>
      Promise.resolve(unsigned({ alg: "NONE" }, good(now))),
    "a public key used as shared secret": (issuer, now) => {
      const pem = issuer.publicKey.export({ type: "spki", format: "pem" });
      return Promise.resolve(
        hmacSigned({ alg: "HS256", kid: "k1" }, good(now), pem),
      );
    },
    "an embedded key (jwk)": (_, now) => selfMade(now, "jwk"),
    "an embedded certificate (x5c)": (_, now) => selfMade(now, "x5c"),
    "a key URL (jku)": (_, now) => selfMade(now, "jku"),
    "the signature of an unknown key": (_, now) => selfMade(now, undefined),
    "an unknown kid": (issuer) => issuer.sign(PULL, {}, { kid: "k2" }),
    "another issuer": (issuer) => issuer.sign(PULL, { iss: "evil.example" }),
    "another audience": (issuer) => issuer.sign(PULL, { aud: "other" }),
    "no audience": (issuer) => issuer.sign(PULL, { aud: undefined }),
    "no expiry (exp)": (issuer) => issuer.sign(PULL, { exp: undefined }),
    "no time of issue (iat)": (issuer) => issuer.sign(PULL, { iat: undefined }),
    "a start in the future (nbf)": (issuer, now) =>
      issuer.sign(PULL, { nbf: now + 60 }),
    "a time of issue more than a minute in the future (iat)": (issuer, now) =>
      issuer.sign(PULL, { iat: now + 61, exp: now + 600 }),
    "an expiry in the past (exp)": (issuer, now) =>
      issuer.sign(PULL, { exp: now - 60 }),
    "an unknown critical header (crit)": (_, now) =>
      Promise.resolve(
        unsigned({ alg: "ES256", kid: "k1", crit: ["x"], x: 1 }, good(now)),
      ),
    "a changed body": async (issuer, now) => {
      const [head = "", , signature = ""] = (await issuer.sign(PULL)).split(
        ".",
      );
      return `${head}.${part({ ...good(now), sub: "root" })}.${signature}`;
    },
    "no signature": async (issuer) =>
      `${(await issuer.sign(PULL)).split(".").slice(0, 2).join(".")}.`,
    "only dots": () => Promise.resolve(".".repeat(8_000)),
    "invalid JSON": () => Promise.resolve("YQ.YQ.YQ"),
  };
  for (const [name, make] of Object.entries(faults)) {
    void it(`with ${name} is rejected`, async (test) => {
      const { clock, issuer, tokens } = await open(test);
      const token = await make(issuer, Math.floor(clock.nowMs() / 1000));
      assert.equal(await tokens.check(token), undefined);
    });
  }

  void it("signed by a certificate's key is verified by its libtrust key id, as Distribution writes it", async (test) => {
    const { clock, issuer, tokens } = await open(test);
    const pair = createCertificateAuthority().issue();
    const { publicKey } = new X509Certificate(pair.cert);
    tokens.setKeys([{ key: publicKey, id: undefined, algorithm: undefined }]);
    const sign = (header: Record<string, unknown>): Promise<string> =>
      new SignJWT({ ...good(Math.floor(clock.nowMs() / 1000)), access: PULL })
        .setProtectedHeader({ alg: "ES256", ...header })
        .sign(createPrivateKey(pair.key));
    const kid = libtrustKeyId(publicKey);
    assert.match(kid, /^(?:[A-Z2-7]{4}:){11}[A-Z2-7]{4}$/);
    assert.ok(await tokens.check(await sign({ kid })));
    assert.ok(await tokens.check(await sign({})));
    assert.equal(await tokens.check(await sign({ kid: "x" })), undefined);
    assert.equal(await tokens.check(await issuer.sign(PULL)), undefined);
  });

  void it("longer than 8 KiB, even a million dots, is refused before it is split", () => {
    for (const token of [".".repeat(1_000_000), "a".repeat(8_193)]) {
      assert.deepEqual(parseAuthorization(`Bearer ${token}`), {
        kind: "malformed",
        scheme: "bearer",
      });
    }
  });
});

function good(now: number): Record<string, unknown> {
  return {
    iss: "auth.example",
    aud: "mirror.example",
    sub: "carol",
    iat: now,
    nbf: now,
    exp: now + 300,
  };
}

function part(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function unsigned(header: unknown, claims: unknown): string {
  return `${part(header)}.${part(claims)}.`;
}

function hmacSigned(header: unknown, claims: unknown, secret: string): string {
  const text = `${part(header)}.${part(claims)}`;
  const mac = createHmac("sha256", secret).update(text).digest("base64url");
  return `${text}.${mac}`;
}

/** Correctly signed, by a key that only the token contains. */
function selfMade(now: number, by: "jwk" | "x5c" | "jku" | undefined) {
  const { publicKey, privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
  });
  const pair = createCertificateAuthority().issue();
  const [, body = ""] = pair.cert.split(/-----[A-Z ]+-----/);
  const headers = {
    jwk: { jwk: publicKey.export({ format: "jwk" }) },
    x5c: { x5c: [body.replaceAll(/\s/g, "")] },
    jku: { jku: "https://evil.example/jwks.json" },
  };
  return new SignJWT({ ...good(now), access: PULL })
    .setProtectedHeader({
      alg: "ES256",
      ...(by === undefined ? { kid: "k1" } : headers[by]),
    })
    .sign(privateKey);
}
