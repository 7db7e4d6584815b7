import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { judgeRealm } from "../../../../src/upstream/auth/realm.ts";

interface Case {
  readonly endpoint: string;
  readonly realm: string | undefined;
  readonly upstream?: string;
  readonly tokenRealms?: readonly string[];
}

const ALLOWED: readonly Case[] = [
  { endpoint: "https://ghcr.io", realm: "https://ghcr.io/token" },
  { endpoint: "https://reg.example.com", realm: "https://auth.example.com/t" },
  {
    endpoint: "https://a.example.co.uk:5000",
    realm: "https://example.co.uk/t",
  },
  { endpoint: "http://a.example.com", realm: "http://b.example.com/t" },
  { endpoint: "http://a.example.com", realm: "https://b.example.com/t" },
  {
    endpoint: "https://registry.gitlab.com",
    realm: "https://gitlab.com/jwt/auth?client=docker",
  },
  {
    endpoint: "https://registry-1.docker.io",
    realm: "https://auth.docker.io/token",
  },
  {
    endpoint: "http://127.0.0.1:5000",
    upstream: "docker.io",
    realm: "https://auth.docker.io/token",
  },
  { endpoint: "http://127.0.0.1:5000", realm: "http://127.0.0.1:5000/token" },
  { endpoint: "http://[::1]:5000", realm: "http://[::1]:5000/token" },
  {
    endpoint: "https://reg.corp",
    realm: "https://sso.other:8443/t",
    tokenRealms: ["sso.other"],
  },
  {
    endpoint: "https://reg.corp",
    realm: "https://sso.other:8443/t",
    tokenRealms: ["SSO.other:8443"],
  },
  {
    endpoint: "https://reg.corp",
    realm: "https://sso.other/t",
    tokenRealms: ["sso.other:443"],
  },
];

const REFUSED: readonly Case[] = [
  { endpoint: "https://reg.example.com", realm: undefined },
  { endpoint: "https://reg.example.com", realm: "/token" },
  { endpoint: "https://reg.example.com", realm: "not a URL" },
  { endpoint: "https://reg.example.com", realm: "file:///etc/passwd" },
  { endpoint: "https://reg.example.com", realm: "https://evil.example/t" },
  { endpoint: "https://reg.example.com", realm: "https://example.com.evil/t" },
  { endpoint: "https://reg.example.com", realm: "http://reg.example.com/t" },
  { endpoint: "https://reg.example.com", realm: "http://auth.example.com/t" },
  {
    endpoint: "https://reg.example.com",
    realm: "https://u:p@reg.example.com/",
  },
  { endpoint: "https://reg.example.com", realm: "https://u@auth.example.com/" },
  { endpoint: "https://reg.example.com", realm: "https://169.254.169.254/" },
  { endpoint: "https://reg.example.com", realm: "https://localhost/token" },
  // The private section of the Public Suffix List: sibling domains do not trust each other.
  { endpoint: "https://a.github.io", realm: "https://b.github.io/t" },
  { endpoint: "https://a.co.uk", realm: "https://b.co.uk/t" },
  { endpoint: "http://localhost:5000", realm: "http://localhost:5001/t" },
  { endpoint: "http://127.0.0.1:5000", realm: "http://127.0.0.1:5001/t" },
  { endpoint: "http://10.0.0.1", realm: "http://0x0a000001:81/t" },
  { endpoint: "http://[::1]:5000", realm: "http://[::1]:5001/t" },
  {
    endpoint: "https://registry.example",
    realm: "https://auth.docker.io/token",
  },
  {
    endpoint: "http://127.0.0.1:5000",
    upstream: "docker.io",
    realm: "http://auth.docker.io/token",
  },
  {
    endpoint: "https://reg.corp",
    realm: "http://sso.other/t",
    tokenRealms: ["sso.other"],
  },
  {
    endpoint: "https://reg.corp",
    realm: "https://sso.other:8443/t",
    tokenRealms: ["sso.other:443", "other", "*.other"],
  },
];

function judge({ endpoint, realm, upstream, tokenRealms }: Case) {
  return judgeRealm(realm, {
    upstream: upstream ?? "registry.example",
    endpoint: new URL(endpoint),
    tokenRealms: tokenRealms ?? [],
  });
}

void describe("judgeRealm", () => {
  for (const one of ALLOWED) {
    void it(`allows ${one.endpoint} (${one.upstream ?? "-"}) to use ${one.realm}`, async () => {
      const verdict = await judge(one);
      assert.ok("realm" in verdict, JSON.stringify(verdict));
      assert.equal(verdict.realm.href, one.realm);
    });
  }
  for (const one of REFUSED) {
    void it(`refuses ${one.realm} for ${one.endpoint} (${one.upstream ?? "-"})`, async () => {
      const verdict = await judge(one);
      assert.ok("refusal" in verdict, JSON.stringify(verdict));
      assert.doesNotMatch(verdict.refusal, /u:p@/);
    });
  }
});
