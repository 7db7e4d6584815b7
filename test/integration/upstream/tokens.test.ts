import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import { Barrier } from "../../support/barrier.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  type RecordedRequest,
  ScriptedUpstream,
} from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import {
  ALPINE,
  repositoryName,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const BUSYBOX = repositoryName("library/busybox");
const IMAGE = buildImage({ seed: "tokens" });
const [BLOB] = IMAGE.blobs;
const CREDENTIALS = [
  { username: "acme", password: new Secret("canary-password") },
];

type Auth = NonNullable<
  NonNullable<Parameters<typeof ScriptedUpstream.start>[1]>["auth"]
>;

function isWithoutToken({ headers }: RecordedRequest): boolean {
  return headers["authorization"] === undefined;
}

async function startRegistry(
  t: AfterTest,
  auth: Auth,
  clock?: FakeClock,
): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(t, {
    auth,
    ...(clock === undefined ? {} : { clock }),
  });
  upstream.content.addImage(ALPINE, IMAGE, "1");
  upstream.content.addImage(BUSYBOX, IMAGE, "1");
  return upstream;
}

/** Makes challenges name the registry's own port. */
function moveRealm(upstream: ScriptedUpstream): void {
  upstream.when(
    { kind: "manifest", where: isWithoutToken },
    {
      headers: {
        "www-authenticate": `Bearer realm="${upstream.origin}/token",service="scripted",scope="repository:${ALPINE}:pull"`,
      },
    },
    { beforeAuth: true },
  );
}

void describe("a token", () => {
  for (const tokenField of ["token", "access_token", "both"] as const) {
    void it(`is taken from ${tokenField}`, async (t) => {
      const upstream = await startRegistry(t, { scheme: "bearer", tokenField });
      const { client } = startUpstreamClient(t, [upstream.origin]);
      await client.headManifest(ALPINE, TAG, SIGNAL);
      assert.equal(upstream.count(), 3);
    });
  }

  void it("is fetched once for concurrent requests", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(BUSYBOX, TAG, SIGNAL);
    upstream.forgetRequests();

    const barrier = new Barrier();
    upstream.when({ kind: "token" }, { hold: { at: "headers", barrier } });
    const pulls = Array.from({ length: 50 }, () =>
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    await barrier.arrived(1);
    barrier.release();
    await Promise.all(pulls);
    assert.equal(upstream.count({ kind: "token" }), 1);
    assert.equal(upstream.count({ status: 401 }), 0);
    assert.equal(upstream.count({ kind: "manifest" }), 50);
  });

  void it("is still fetched for others when the first caller leaves", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(BUSYBOX, TAG, SIGNAL);
    const barrier = new Barrier();
    upstream.when({ kind: "token" }, { hold: { at: "headers", barrier } });
    const leaving = new AbortController();
    const first = upstreamErrorOf(
      client.headManifest(ALPINE, TAG, leaving.signal),
    );
    await barrier.arrived(1);
    const second = client.headManifest(ALPINE, TAG, SIGNAL);
    leaving.abort();
    assert.equal((await first).kind, "timeout");
    barrier.release();
    await second;
    assert.equal(upstream.count({ kind: "token" }), 2);
    assert.equal(client.isDown(), false);
  });

  void it("is renewed at 90 % of its lifetime, before the request, by the monotonic clock", async (t) => {
    const clock = new FakeClock();
    const auth = { scheme: "bearer", expiresInSeconds: 100 } as const;
    const upstream = await startRegistry(t, auth, clock);
    const { client } = startUpstreamClient(t, [upstream.origin], { clock });
    await client.headManifest(ALPINE, TAG, SIGNAL);
    clock.advance(89_999);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal(upstream.tokens?.issuedCount, 1);
    clock.advance(1);
    upstream.forgetRequests();
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(
      upstream.requests().map(({ kind, status }) => [kind, status]),
      [
        ["token", 200],
        ["manifest", 200],
      ],
    );
  });

  void it("is used for a minute if its lifetime is not stated", async (t) => {
    const clock = new FakeClock();
    const auth = { scheme: "bearer", expiresInSeconds: "missing" } as const;
    const upstream = await startRegistry(t, auth, clock);
    const { client } = startUpstreamClient(t, [upstream.origin], { clock });
    for (const advanceMs of [0, 53_999, 1]) {
      clock.advance(advanceMs);
      await client.headManifest(ALPINE, TAG, SIGNAL);
    }
    assert.equal(upstream.tokens?.issuedCount, 2);
    assert.equal(upstream.count({ status: 401 }), 1);
  });

  void it("is fetched again once if the upstream no longer accepts it", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    upstream.tokens?.revoke();
    upstream.forgetRequests();
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(
      upstream.requests().map(({ kind, status }) => [kind, status]),
      [
        ["manifest", 401],
        ["token", 200],
        ["manifest", 200],
      ],
    );
  });

  void it("that is refused although new means that the repository does not exist", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    upstream.deny(BUSYBOX);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const error = await upstreamErrorOf(
      client.headManifest(BUSYBOX, TAG, SIGNAL),
    );
    assert.equal(error.kind, "unauthorized");
    assert.equal(error.status, 401);
    assert.equal(upstream.count({ kind: "manifest" }), 2);
    assert.equal(upstream.count({ kind: "token" }), 1);
    assert.equal(client.isDown(), false);
    await client.headManifest(ALPINE, TAG, SIGNAL);
  });

  void it("has the scope of the challenge, even if it names no repository", async (t) => {
    const upstream = await startRegistry(t, {
      scheme: "bearer",
      challengeScope: "aws",
    });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    await client.headManifest(BUSYBOX, TAG, SIGNAL);
    assert.equal(upstream.tokens?.issuedCount, 1);
    assert.equal(upstream.count({ status: 401 }), 1);
  });

  void it("with a wrongly derived scope is replaced by one with the challenge's scope", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    const scope = "repository:library/busybox:pull repository:base:pull";
    upstream.when(
      { repository: BUSYBOX },
      {
        status: 401,
        headers: {
          "www-authenticate": `Bearer realm="${upstream.origin}/token",service="scripted",scope="${scope}",error="insufficient_scope"`,
        },
      },
      { times: 1 },
    );
    upstream.forgetRequests();
    await client.headManifest(BUSYBOX, TAG, SIGNAL);
    await client.headManifest(BUSYBOX, TAG, SIGNAL);
    assert.deepEqual(
      upstream
        .requests({ kind: "token" })
        .map(({ query }) => query.getAll("scope")),
      [["repository:library/busybox:pull"], scope.split(" ")],
    );
    assert.equal(upstream.count({ kind: "manifest" }), 3);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal(upstream.count({ status: 401 }), 1);
  });

  void it("is requested with the realm's own query and every scope", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    upstream.when(
      { kind: "manifest", where: isWithoutToken },
      {
        status: 401,
        headers: {
          "www-authenticate": `Bearer realm="${upstream.origin}/token?client=docker",service="scripted",scope="repository:library/alpine:pull repository:base:pull"`,
        },
      },
      { times: 1, beforeAuth: true },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal(
      upstream.requests({ kind: "token" })[0]?.target,
      "/token?client=docker&service=scripted&scope=repository%3Alibrary%2Falpine%3Apull&scope=repository%3Abase%3Apull",
    );
  });
});

void describe("a challenge", () => {
  void it("that a 401 lacks is requested from the root of the API", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    upstream.when(
      { kind: "manifest", where: isWithoutToken },
      { headers: { "www-authenticate": undefined } },
      { beforeAuth: true },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal(upstream.count({ kind: "ping" }), 1);
    assert.equal(upstream.count({ kind: "token" }), 1);
  });

  void it("that is missing everywhere ends in unauthorized", async (t) => {
    const upstream = await startRegistry(t, {
      scheme: "basic",
      users: { acme: "canary-password" },
    });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const error = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "unauthorized");
    assert.equal(upstream.count(), 1);
  });

  void it("for Basic is answered once: wrong credentials are not tried again", async (t) => {
    const upstream = await startRegistry(t, {
      scheme: "basic",
      users: { acme: "another" },
    });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials: CREDENTIALS,
    });
    const error = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "unauthorized");
    assert.doesNotMatch(error.message, /canary/);
    assert.equal(upstream.count(), 2);
  });

  void it("to a HEAD of a blob with a valid token is followed by a GET, as ECR Public requires", async (t) => {
    assert.ok(BLOB);
    const upstream = await startRegistry(t, { scheme: "bearer" });
    upstream.when({ kind: "blob", method: "HEAD" }, { status: 401 });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    upstream.forgetRequests();
    const head = await client.headBlob(ALPINE, BLOB.digest, SIGNAL);
    assert.equal(head.sizeBytes, BLOB.sizeBytes);
    assert.deepEqual(
      upstream.requests().map(({ method, kind }) => [method, kind]),
      [
        ["HEAD", "blob"],
        ["GET", "blob"],
      ],
    );
  });
});

void describe("a realm", () => {
  void it("on another port is used if tokenRealms lists it", async (t) => {
    const upstream = await startRegistry(t, {
      scheme: "bearer",
      realm: "port",
    });
    const port = upstream.tokenListener?.port ?? 0;
    for (const listed of ["127.0.0.1", `127.0.0.1:${port}`]) {
      const { client } = startUpstreamClient(t, [upstream.origin], {
        tokenRealms: [listed],
      });
      await client.headManifest(ALPINE, TAG, SIGNAL);
    }
    assert.equal(upstream.count({ listener: "token" }), 2);
  });

  for (const realm of ["port", "host"] as const) {
    for (const credentials of [[], CREDENTIALS]) {
      void it(`on another ${realm} is never used unless listed, with ${credentials.length} credentials`, async (t) => {
        const upstream = await startRegistry(t, {
          scheme: "bearer",
          realm,
          users: { acme: "canary-password" },
        });
        const { client, observer } = startUpstreamClient(t, [upstream.origin], {
          credentials,
        });
        for (let round = 0; round < 4; round++) {
          const error = await upstreamErrorOf(
            client.headManifest(ALPINE, TAG, SIGNAL),
          );
          assert.equal(error.kind, "bad-response");
          assert.match(error.message, /tokenRealms/);
        }
        assert.equal(upstream.count({ listener: "token" }), 0);
        assert.equal(upstream.tokenListener?.connectionCount, 0);
        assert.equal(client.isDown(), false);
        assert.equal(observer.faults.length, 4);
        for (const { headers } of upstream.requests()) {
          assert.equal(headers["authorization"], undefined);
        }
      });
    }
  }

  void it("that changes in a later challenge is checked again", async (t) => {
    const upstream = await startRegistry(t, {
      scheme: "bearer",
      users: { acme: "canary-password" },
    });
    const trap = await startRegistry(t, { scheme: "bearer" });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials: CREDENTIALS,
    });
    await client.headManifest(ALPINE, TAG, SIGNAL);
    upstream.tokens?.revoke();
    upstream.when(
      { kind: "manifest" },
      {
        status: 401,
        headers: {
          "www-authenticate": `Bearer realm="${trap.origin}/token",service="scripted"`,
        },
      },
      { beforeAuth: true },
    );
    const error = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "bad-response");
    assert.equal(trap.registry.connectionCount, 0);
  });

  void it("that redirects is not followed", async (t) => {
    const upstream = await startRegistry(t, {
      scheme: "bearer",
      users: { acme: "canary-password" },
    });
    const trap = await startRegistry(t, { scheme: "bearer" });
    upstream.when(
      { kind: "token" },
      { status: 307, headers: { location: `${trap.origin}/token` } },
    );
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials: CREDENTIALS,
    });
    const error = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "bad-response");
    assert.equal(trap.registry.connectionCount, 0);
  });

  void it("that fails once is retried", async (t) => {
    const upstream = await startRegistry(t, { scheme: "bearer" });
    upstream.when({ kind: "token" }, { status: 500 }, { times: 1 });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.equal(upstream.count({ kind: "token" }), 2);
  });

  const BROKEN = [
    ["500 permanently", { status: 500 }, "unavailable"],
    ["HTML", { body: "<html>log in</html>" }, "bad-response"],
    ["no token", { body: "{}" }, "bad-response"],
    ["nothing", { body: "" }, "bad-response"],
    ["1 MiB", { body: Buffer.alloc(1_048_576, 0x20) }, "bad-response"],
    [
      "1 MiB in chunks",
      { body: Buffer.alloc(1_048_576, 0x20), framing: "chunked" },
      "bad-response",
    ],
    ["401", { status: 401 }, "unauthorized"],
    ["403", { status: 403 }, "denied"],
    ["404", { status: 404 }, "bad-response"],
    ["400", { status: 400 }, "bad-response"],
    ["429", { status: 429 }, "rate-limited"],
    ["half an answer", { contentLength: 4_000 }, "interrupted"],
  ] as const;
  for (const [name, fault, kind] of BROKEN) {
    void it(`that answers ${name} is ${kind} for every waiting caller`, async (t) => {
      const upstream = await startRegistry(t, { scheme: "bearer" });
      upstream.when({ kind: "token" }, fault);
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const errors = await Promise.all(
        Array.from({ length: 5 }, () =>
          upstreamErrorOf(client.headManifest(ALPINE, TAG, SIGNAL)),
        ),
      );
      assert.deepEqual(
        errors.map((error) => error.kind),
        Array(5).fill(kind),
      );
      assert.equal(upstream.count({ status: 200, kind: "manifest" }), 0);
    });
  }

  void it("that refuses the credentials is not asked again immediately: accounts get locked", async (t) => {
    const clock = new FakeClock();
    const upstream = await startRegistry(
      t,
      { scheme: "bearer", users: { acme: "another" } },
      clock,
    );
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials: CREDENTIALS,
      clock,
    });
    for (let round = 0; round < 5; round++) {
      const error = await upstreamErrorOf(
        client.headManifest(ALPINE, TAG, SIGNAL),
      );
      assert.equal(error.kind, "unauthorized");
    }
    assert.equal(upstream.count({ kind: "token" }), 1);
    clock.advance(10_000);
    await upstreamErrorOf(client.headManifest(ALPINE, TAG, SIGNAL));
    assert.equal(upstream.count({ kind: "token" }), 2);
  });

  void it("that is down does not mark its endpoint as down", async (t) => {
    const upstream = await startRegistry(t, {
      scheme: "bearer",
      realm: "port",
    });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      tokenRealms: ["127.0.0.1"],
    });
    await upstream.tokenListener?.stop();
    const error = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "unreachable");
    assert.equal(client.isDown(), false);
    const again = await upstreamErrorOf(
      client.headManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(again.kind, "breaker-open");
    assert.ok((again.retryAfterMs ?? 0) > 0);
  });
});

void describe("a remembered challenge", () => {
  const LIFE_MS = 300_000;

  /** A client with an expired token. */
  async function setUp(t: AfterTest) {
    const clock = new FakeClock();
    const upstream = await startRegistry(
      t,
      { scheme: "bearer", realm: "port" },
      clock,
    );
    const { client } = startUpstreamClient(t, [upstream.origin], {
      clock,
      tokenRealms: ["127.0.0.1"],
    });
    await client.headManifest(ALPINE, TAG, SIGNAL);
    clock.advance(LIFE_MS);
    upstream.forgetRequests();
    const head = () => client.headManifest(ALPINE, TAG, SIGNAL);
    return { clock, upstream, client, head };
  }

  for (const [name, fail] of [
    ["is gone", (upstream) => upstream.tokenListener?.stop()],
    [
      "answers 404",
      (upstream) =>
        upstream.when(
          { listener: "token" },
          { status: 404 },
          { beforeAuth: true },
        ),
    ],
    [
      "answers 500",
      (upstream) =>
        upstream.when(
          { listener: "token" },
          { status: 500 },
          { beforeAuth: true },
        ),
    ],
  ] as const satisfies readonly (readonly [
    string,
    (upstream: ScriptedUpstream) => unknown,
  ])[]) {
    void it(`whose realm ${name} is replaced by a new one of the endpoint, in the same request`, async (t) => {
      const { clock, upstream, client, head } = await setUp(t);
      await fail(upstream);
      moveRealm(upstream);
      const { digest } = await head();
      assert.equal(digest, IMAGE.manifest.digest);
      const own = { listener: "registry" } as const;
      // One request without a token, and one with the new token.
      assert.equal(upstream.count({ ...own, where: isWithoutToken }), 2);
      assert.equal(upstream.count({ ...own, kind: "token" }), 1);
      // The new challenge is used for other repositories and for the next token.
      upstream.forgetRequests();
      await client.headManifest(BUSYBOX, TAG, SIGNAL);
      clock.advance(LIFE_MS);
      await head();
      assert.equal(upstream.count({ listener: "token" }), 0);
    });
  }

  void it("whose realm fails and is named again costs one more request, and none before its rest is over", async (t) => {
    const { clock, upstream, head } = await setUp(t);
    upstream.when({ listener: "token" }, { status: 404 }, { beforeAuth: true });
    for (let round = 0; round < 5; round++) {
      const error = await upstreamErrorOf(head());
      assert.equal(error.kind, "bad-response");
    }
    assert.equal(upstream.count({ listener: "token" }), 1);
    assert.equal(upstream.count({ kind: "manifest" }), 1);
    upstream.clearRules();
    clock.advance(5_000);
    await head();
  });

  void it("is dropped if the endpoint requires no token any more", async (t) => {
    const { clock, upstream, head } = await setUp(t);
    await upstream.tokenListener?.stop();
    upstream.when({ kind: "manifest" }, { status: 200 }, { beforeAuth: true });
    for (let round = 0; round < 3; round++) {
      await head();
      clock.advance(LIFE_MS);
    }
    assert.equal(upstream.count({ kind: "manifest" }), 3);
  });

  void it("that is invalid does not replace a valid one", async (t) => {
    const { upstream, head } = await setUp(t);
    await head();
    upstream.tokens?.revoke();
    upstream.forgetRequests();
    const bad = `Bearer realm="${upstream.origin}/nowhere",service="x"`;
    upstream.when(
      { kind: "manifest" },
      { headers: { "www-authenticate": bad } },
      { times: 1, beforeAuth: true },
    );
    await upstreamErrorOf(head());
    // The valid token is no longer accepted; another one is requested from the realm.
    await head();
  });
});
