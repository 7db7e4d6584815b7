import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import type { AccessAction } from "../../../../src/config/config.ts";
import {
  ANONYMOUS,
  type Identity,
} from "../../../../src/http/client-auth/identity.ts";
import { formatChallenge } from "../../../../src/http/client-auth/challenge.ts";
import { parseAuthorization } from "../../../../src/http/client-auth/credentials.ts";
import {
  addressGroup,
  canonicalAddress,
  compileNetworks,
} from "../../../../src/http/client-auth/networks.ts";
import {
  createPolicy,
  type Right,
} from "../../../../src/http/client-auth/policy.ts";
import { basic } from "../../../support/access.ts";

const ALICE: Identity = { kind: "user", name: "alice" };
const BOB: Identity = { kind: "user", name: "bob" };

function token(
  name: string,
  repository: string,
  catalog = false,
  actions: readonly AccessAction[] = ["pull"],
): Identity {
  const repositories = new Map([[repository, new Set(actions)]]);
  return { kind: "token", name, grants: { repositories, catalog } };
}

function pull(name: string): Right {
  return right("pull", name);
}

function right(
  action: AccessAction,
  name: string,
  isHosted = name.startsWith("local/"),
): Right {
  return { kind: "repository", action, name, isHosted };
}

void describe("a policy", () => {
  void it("without rules lets every admitted client pull, and users write to hosted repositories", () => {
    const policy = createPolicy([]);
    for (const one of [ANONYMOUS, ALICE]) {
      assert.ok(policy(one, { kind: "enter" }));
      assert.ok(policy(one, pull("docker.io/a")));
      assert.ok(policy(one, pull("local/a")));
      for (const action of ["push", "delete"] as const) {
        assert.ok(!policy(one, right(action, "x/a")));
        assert.equal(policy(one, right(action, "local/a")), one === ALICE);
      }
    }
    assert.ok(policy(token("", "docker.io/a"), pull("docker.io/a")));
    assert.ok(!policy(token("", "docker.io/a"), pull("docker.io/b")));
  });

  void it("without rules lets a token do what its claims say, on mirrored repositories too", () => {
    const policy = createPolicy([]);
    for (const name of ["local/a", "docker.io/a"]) {
      for (const action of ["pull", "push", "delete"] as const) {
        const granting = token("ci", name, false, [action]);
        for (const other of ["pull", "push", "delete"] as const) {
          const label = `${name}: a claim of ${action}, request of ${other}`;
          assert.equal(
            policy(granting, right(other, name)),
            other === action,
            label,
          );
          assert.ok(!policy(granting, right(other, `${name}b`)), label);
        }
      }
    }
  });

  void it("with rules includes pull in push, and delete in nothing", () => {
    const policy = createPolicy([
      { who: ["alice"], repositories: ["local/a"], actions: ["push"] },
      { who: ["bob"], repositories: ["local/a"], actions: ["delete"] },
    ]);
    const may = (one: Identity, name = "local/a") =>
      (["pull", "push", "delete"] as const).filter((action) =>
        policy(one, right(action, name)),
      );
    assert.deepEqual(may(ALICE), ["pull", "push"]);
    assert.deepEqual(may(BOB), ["delete"]);
    assert.deepEqual(may(ALICE, "local/b"), []);
    assert.ok(policy(ALICE, { kind: "catalog-entry", name: "local/a" }));
    assert.ok(!policy(BOB, { kind: "catalog-entry", name: "local/a" }));
    // A token needs the claim and the rule.
    for (const [name, actions, want] of [
      ["alice", ["pull", "push", "delete"], ["pull", "push"]],
      ["alice", ["pull"], ["pull"]],
      ["bob", ["pull", "push"], []],
      ["bob", ["delete"], ["delete"]],
    ] as const) {
      assert.deepEqual(may(token(name, "local/a", false, actions)), want);
    }
  });

  void it("lets an anonymous client only pull, whatever a rule for every client says", () => {
    const actions = ["pull", "push", "delete"] as const;
    const policy = createPolicy([
      { who: ["*"], repositories: ["**"], actions: [...actions] },
    ]);
    for (const action of actions) {
      for (const name of ["local/a", "docker.io/a"]) {
        const wanted = right(action, name);
        assert.equal(policy(ANONYMOUS, wanted), action === "pull");
        assert.ok(policy(ALICE, wanted));
        assert.ok(policy(token("", name, false, [action]), wanted));
      }
    }
  });

  void it("denies everything that no rule allows, if there is a rule", () => {
    const policy = createPolicy([
      { who: ["bob"], repositories: ["x/b"], actions: ["delete"] },
    ]);
    for (const one of [ANONYMOUS, ALICE, BOB, token("bob", "x/b")]) {
      assert.ok(!policy(one, pull("x/b")), one.kind);
      assert.ok(!policy(one, pull("y/z")), one.kind);
      assert.ok(!policy(one, { kind: "catalog-entry", name: "x/b" }));
    }
  });

  void it("matches every client with a star, and matches patterns against upstream and repository", () => {
    const policy = createPolicy([
      { who: ["*"], repositories: ["docker.io/library/*"], actions: ["pull"] },
      {
        who: ["alice", "ci"],
        repositories: ["registry.corp:5000/team/**", "ghcr.io/acme/app"],
        actions: ["pull"],
      },
    ]);
    const cases: readonly (readonly [Identity, string, boolean])[] = [
      [ANONYMOUS, "docker.io/library/alpine", true],
      [ANONYMOUS, "docker.io/library/a/b", false],
      [ANONYMOUS, "quay.io/library/alpine", false],
      [ANONYMOUS, "registry.corp:5000/team/a", false],
      [BOB, "docker.io/library/alpine", true],
      [BOB, "registry.corp:5000/team/a/b", false],
      [ALICE, "docker.io/library/alpine", true],
      [ALICE, "registry.corp:5000/team/a/b", true],
      [ALICE, "registry.corp/team/a", false],
      [ALICE, "ghcr.io/acme/app", true],
      [ALICE, "ghcr.io/acme/app2", false],
      [token("alice", "ghcr.io/acme/app"), "ghcr.io/acme/app", true],
      [token("alice", "ghcr.io/acme/other"), "ghcr.io/acme/app", false],
      [token("bob", "ghcr.io/acme/app"), "ghcr.io/acme/app", false],
    ];
    for (const [identity, name, want] of cases) {
      const label = `${JSON.stringify(identity)} ${name}`;
      assert.equal(policy(identity, pull(name)), want, label);
    }
  });

  void it("allows nothing for names of built-in object properties", () => {
    const policy = createPolicy([
      { who: ["alice"], repositories: ["x/**"], actions: ["pull"] },
    ]);
    for (const name of ["__proto__", "constructor", "toString", ""]) {
      assert.ok(!policy({ kind: "user", name }, pull("x/a")), name);
      assert.ok(!policy(token(name, "x/a"), pull("x/a")), name);
      assert.ok(!policy(ALICE, pull(name)), name);
    }
  });
});

void describe("Authorization", () => {
  const cases: readonly (readonly [string | undefined, unknown])[] = [
    [undefined, { kind: "none" }],
    [basic("a", "b"), { kind: "password", user: "a", password: "b" }],
    [basic("a", "b:c:"), { kind: "password", user: "a", password: "b:c:" }],
    [basic("ä", "ö"), { kind: "password", user: "ä", password: "ö" }],
    [
      basic("a", "b").replace("Basic", "bASIC "),
      { kind: "password", user: "a", password: "b" },
    ],
    ["Bearer a.b.c", { kind: "token", token: "a.b.c" }],
    ["Basic", { kind: "malformed", scheme: "basic" }],
    ["Basic Og==", { kind: "malformed", scheme: "basic" }],
    ["Basic %%%", { kind: "malformed", scheme: "basic" }],
    // `alice:pw` for a decoder that ignores invalid base64.
    ["Basic YWxp%Y2U6cHc=", { kind: "malformed", scheme: "basic" }],
    ["Basic YWxp-Y2U6cHc=", { kind: "malformed", scheme: "basic" }],
    [basic("a", "b".repeat(4_000)), { kind: "malformed", scheme: "basic" }],
    ["Basic YQ==", { kind: "malformed", scheme: "basic" }],
    ["Basic //86//8=", { kind: "malformed", scheme: "basic" }],
    [basic("a", "b\0c"), { kind: "malformed", scheme: "basic" }],
    [basic("a\nb", "c"), { kind: "malformed", scheme: "basic" }],
    [`Basic ${"YWFh".repeat(2_000)}`, { kind: "malformed", scheme: "basic" }],
    ["Bearer", { kind: "malformed", scheme: "bearer" }],
    ["Bearer a b", { kind: "malformed", scheme: "bearer" }],
    ["Digest a=b", { kind: "malformed", scheme: "other" }],
    ["", { kind: "malformed", scheme: "other" }],
  ];
  for (const [header, want] of cases) {
    void it(`${JSON.stringify(header)?.slice(0, 40)} is ${JSON.stringify(want)}`, () => {
      assert.deepEqual(parseAuthorization(header), want);
    });
  }

  void it("of any text is parsed without an exception, and a password round-trips", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        parseAuthorization(text);
        parseAuthorization(`Basic ${text}`);
        parseAuthorization(`Bearer ${text}`);
      }),
    );
    const printable = fc.stringMatching(/^[^\p{Cc}\ud800-\udfff]{1,40}$/u);
    fc.assert(
      fc.property(printable, printable, (name, password) => {
        const user = name.replaceAll(":", "-");
        assert.deepEqual(parseAuthorization(basic(user, password)), {
          kind: "password",
          user,
          password,
        });
      }),
    );
  });
});

void describe("networks", () => {
  void it("contain addresses of their own family, including IPv4-mapped IPv6 ones", () => {
    const isIn = compileNetworks(["10.0.0.0/8", "192.0.2.7", "fd00::/8"]);
    for (const [address, want] of [
      ["10.255.0.1", true],
      ["11.0.0.1", false],
      ["192.0.2.7", true],
      ["192.0.2.8", false],
      ["fd12::1", true],
      ["fe80::1", false],
      ["", false],
      ["unix", false],
    ] as const) {
      assert.equal(isIn(address), want, address);
    }
    assert.equal(canonicalAddress("::ffff:10.0.0.1"), "10.0.0.1");
    assert.equal(canonicalAddress("fe80::1%eth0"), "fe80::1");
    assert.equal(canonicalAddress(undefined), "");
    assert.ok(!compileNetworks([])("10.0.0.1"));
  });

  void it("of one IPv6 /64 network are one source of guesses", () => {
    for (const [address, want] of [
      ["192.0.2.1", "192.0.2.1"],
      ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
      ["2001:db8:1:2::", "2001:db8:1:2::/64"],
      ["2001:db8::6", "2001:db8:0:0::/64"],
      ["::1", "0:0:0:0::/64"],
    ] as const) {
      assert.equal(addressGroup(address), want);
    }
  });
});

void describe("a challenge", () => {
  const server = {
    realm: "https://auth.corp/token?x=1",
    service: "mirror",
    issuer: "auth",
    keys: { kind: "jwks", file: "/k" },
  } as const;
  void it("names the realm, the service and the scope", () => {
    assert.equal(
      formatChallenge(undefined, { kind: "enter" }, undefined),
      'Basic realm="entrepot"',
    );
    assert.equal(
      formatChallenge(server, { kind: "enter" }, undefined),
      'Bearer realm="https://auth.corp/token?x=1",service="mirror"',
    );
    assert.equal(
      formatChallenge(server, pull("docker.io/a"), "insufficient_scope"),
      'Bearer realm="https://auth.corp/token?x=1",service="mirror",scope="repository:docker.io/a:pull",error="insufficient_scope"',
    );
    assert.match(
      formatChallenge(server, { kind: "catalog" }, undefined),
      /scope="registry:catalog:\*"/,
    );
  });
});
