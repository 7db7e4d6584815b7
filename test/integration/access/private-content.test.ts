import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import type {
  AccessConfig,
  UpstreamConfig,
} from "../../../src/config/config.ts";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const SECRET = buildImage({ seed: "secret" });
const [SECRET_LAYER] = SECRET.layers;
assert.ok(SECRET_LAYER);
const ALICE = { Authorization: basic("alice", "pw") };
const HOUR_MS = 3_600_000;

const RULES: AccessConfig["rules"] = [
  { who: ["*"], repositories: ["registry.example/pub/**"], actions: ["pull"] },
  {
    who: ["alice"],
    repositories: ["registry.example/team/**"],
    actions: ["pull"],
  },
];

interface Scene {
  readonly upstream: ScriptedUpstream;
  readonly mirror: TestMirror;
}

/** alice may see team and pub; every client may see pub. */
async function open(
  test: TestContext,
  options: {
    readonly rules?: AccessConfig["rules"];
    readonly overrides?: Partial<UpstreamConfig>;
    readonly access?: Partial<AccessConfig>;
  } = {},
): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("team/secret", SECRET, "v");
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream, options.overrides)],
    {
      access: accessConfig({
        htpasswdFile: await writeHtpasswd(test, { alice: "pw" }),
        rules: options.rules ?? RULES,
        ...options.access,
      }),
    },
  );
  return { upstream, mirror };
}

async function pullAsAlice(mirror: TestMirror): Promise<void> {
  for (const path of [
    "manifests/v",
    ...SECRET.blobs.map(({ digest }) => `blobs/${digest}`),
  ]) {
    const { status } = await mirror.get(`/v2/team/secret/${path}`, ALICE);
    assert.equal(status, 200, path);
  }
  await mirror.settled();
}

function assertAbsent(response: RawResponse, code = "BLOB_UNKNOWN"): void {
  assert.deepEqual([response.status, errorCode(response)], [404, code]);
  assert.equal(response.headers["cache-status"], undefined);
}

void describe("private content", () => {
  void it("is not joined during its download, neither in its repository nor through another one", async (test) => {
    const { upstream, mirror } = await open(test);
    const barrier = new Barrier();
    const { digest } = SECRET_LAYER;
    upstream.when(
      { kind: "blob", method: "GET" },
      { hold: { at: 1, barrier } },
      { times: 1 },
    );
    const alices = mirror.start(`/v2/team/secret/blobs/${digest}`, {
      headers: ALICE,
    });
    await alices.answered();
    assertAbsent(await mirror.get(`/v2/team/secret/blobs/${digest}`));
    assert.equal(upstream.count(), 1);
    // Every client may pull from pub/app, but the upstream does not have the blob there.
    assertAbsent(await mirror.get(`/v2/pub/app/blobs/${digest}`));
    assert.equal(upstream.count({ repository: "pub/app", method: "GET" }), 0);
    assert.equal(upstream.count({ repository: "pub/app", method: "HEAD" }), 1);
    // If the upstream has it there, one HEAD is enough to join.
    upstream.content.addBlob("pub/shared", SECRET_LAYER);
    const joined = mirror.start(`/v2/pub/shared/blobs/${digest}`);
    await joined.answered();
    assert.equal(upstream.count({ repository: "pub/shared" }), 1);
    barrier.release();
    for (const { response } of [alices, joined]) {
      const { status, body, end } = await response;
      assert.deepEqual([status, end], [200, "complete"]);
      assert.deepEqual(body, SECRET_LAYER.bytes());
    }
    assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
  });

  for (const [hasRules, want] of [
    [true, 404],
    [false, 200],
  ] as const) {
    void it(`is ${hasRules ? "not had" : "had"} by a manifest of another repository that names it, ${hasRules ? "once" : "as long as no"} rules exist`, async (test) => {
      const { upstream, mirror } = await open(
        test,
        hasRules ? {} : { rules: [] },
      );
      await pullAsAlice(mirror);
      // An attacker publishes a manifest that names the blobs of another repository.
      upstream.content.addManifest("pub/lure", SECRET.manifest, "v");
      assert.equal((await mirror.get("/v2/pub/lure/manifests/v")).status, 200);
      upstream.forgetRequests();
      const path = `/v2/pub/lure/blobs/${SECRET_LAYER.digest}`;
      const got = await mirror.get(path);
      assert.equal(got.status, want);
      assert.equal(upstream.count(), hasRules ? 1 : 0);
      assert.equal(upstream.count({ method: "GET" }), 0);
      const ranged = await mirror.get(path, { Range: "bytes=0-0" });
      assert.equal(ranged.status, hasRules ? 404 : 206);
    });

    void it(`makes a stale tag of another repository ${hasRules ? "incomplete" : "complete"} ${hasRules ? "if" : "as long as no"} rules exist`, async (test) => {
      const { upstream, mirror } = await open(
        test,
        hasRules ? {} : { rules: [] },
      );
      await pullAsAlice(mirror);
      upstream.content.addManifest("pub/lure", SECRET.manifest, "v");
      assert.equal((await mirror.get("/v2/pub/lure/manifests/v")).status, 200);
      mirror.clock.advance(HOUR_MS);
      await upstream.stop();
      const { status } = await mirror.get("/v2/pub/lure/manifests/v");
      // An engine that received the manifest could not complete its pull.
      assert.equal(status, hasRules ? 502 : 200);
    });
  }

  void it("is protected in every spelling of its repository", async (test) => {
    const { upstream, mirror } = await open(test, {
      overrides: {
        name: "docker.io",
        aliases: ["index.docker.io", "hub"],
        hostnames: ["hub.mirror.example"],
        libraryPrefix: true,
      },
      rules: [
        { who: ["*"], repositories: ["docker.io/pub/**"], actions: ["pull"] },
        {
          who: ["alice"],
          repositories: ["docker.io/team/**", "docker.io/library/secret"],
          actions: ["pull"],
        },
      ],
    });
    upstream.content.addImage("library/secret", SECRET, "v");
    const name = "team/secret/manifests/v";
    const spellings: readonly (readonly [string, Record<string, string>?])[] = [
      [`/v2/${name}`],
      [`/v2/docker.io/${name}`],
      [`/v2/index.docker.io/${name}`],
      [`/v2/hub/${name}`],
      [`/v2/${name}?ns=docker.io`],
      [`/v2/${name}?ns=DOCKER.io.`],
      [`/v2/${name}?ns=hub`],
      [`/v2/docker.io/${name}?ns=quay.io`],
      [`/hub/v2/${name}`],
      [`/v2/${name}`, { Host: "hub.mirror.example" }],
      [`/v2/${name}`, { Host: "HUB.mirror.example.:5000" }],
      ["/v2/secret/manifests/v"],
      ["/v2/library/secret/manifests/v"],
      ["/v2/docker.io/secret/manifests/v"],
    ];
    for (const [path, headers] of spellings) {
      assertAbsent(await mirror.get(path, headers), "MANIFEST_UNKNOWN");
    }
    assert.equal(upstream.count(), 0);
    for (const [path, headers] of spellings) {
      const { status } = await mirror.get(path, { ...headers, ...ALICE });
      assert.equal(status, 200, path);
    }
    // S6: an invalid repository name is rejected for every client.
    for (const path of [
      "/v2/pub/../team/secret/manifests/v",
      "/v2/pub/%2e%2e/team/secret/manifests/v",
      "/v2/pub%2f..%2fteam/secret/manifests/v",
      "/v2/pub//team/secret/manifests/v",
      "//v2/team/secret/manifests/v",
      "/v2/team\\secret/manifests/v",
      "/v2/TEAM/secret/manifests/v",
      "/v2/team./secret/manifests/v",
      "/v2/team/secret/manifests/v%00",
      "/v2/team/secret/blobs/sha256:../../x",
      `/v2/team/secret/blobs/${SECRET_LAYER.digest.toUpperCase()}`,
      `/v2/team/secret/manifests/${"v".repeat(129)}`,
      `/v2/${"a/".repeat(130)}secret/manifests/v`,
    ]) {
      const bobs = await mirror.get(path);
      assert.ok([400, 404].includes(bobs.status), `${path} ${bobs.status}`);
      const alices = await mirror.get(path, ALICE);
      assert.ok([400, 404].includes(alices.status), path);
    }
  });

  void it("is checked for the upstream that answers, for every hint that selects it", async (test) => {
    const [opened, closed] = await Promise.all(
      ["open", "closed"].map(() => ScriptedUpstream.start(test)),
    );
    assert.ok(opened && closed);
    const other = buildImage({ seed: "of the closed one" });
    opened.content.addImage("team/app", SECRET, "v");
    closed.content.addImage("team/app", other, "v");
    const mirror = await startMirror(
      test,
      [
        upstreamOf(opened, { name: "a.example", hostnames: ["a.mirror"] }),
        upstreamOf(closed, {
          name: "b.example",
          isDefault: false,
          aliases: ["b"],
          hostnames: ["b.mirror"],
        }),
      ],
      {
        access: accessConfig({
          rules: [
            {
              who: ["*"],
              repositories: ["a.example/team/**"],
              actions: ["pull"],
            },
          ],
        }),
      },
    );
    const name = "team/app/manifests/v";
    const cases: readonly (readonly [string, string | undefined, boolean])[] = [
      [`/v2/${name}`, undefined, true],
      [`/v2/${name}?ns=a.example`, "b.mirror", true],
      [`/v2/a.example/${name}?ns=b.example`, "b.mirror", true],
      [`/a.example/v2/${name}?ns=b.example`, "b.mirror", true],
      [`/v2/${name}?ns=b.example`, undefined, false],
      [`/v2/${name}?ns=b`, "a.mirror", false],
      [`/v2/${name}`, "b.mirror", false],
      [`/v2/${name}`, "B.MIRROR.:5000", false],
      [`/v2/b.example/${name}`, undefined, false],
      [`/v2/b/${name}?ns=a.example`, "a.mirror", false],
      [`/b.example/v2/${name}?ns=a.example`, "a.mirror", false],
    ];
    // And back: the route of one client's path does not apply to another client.
    for (const [path, host, isOpen] of [...cases.toReversed(), ...cases]) {
      const headers = host === undefined ? {} : { Host: host };
      for (let twice = 0; twice < 2; twice++) {
        const got = await mirror.get(path, headers);
        if (isOpen) assert.equal(got.sha256, SECRET.manifest.digest, path);
        else assertAbsent(got, "MANIFEST_UNKNOWN");
      }
    }
    assert.equal(closed.count(), 0);
    assert.ok(opened.count() > 0);
  });

  void it("named like built-in object properties is absent like any other", async (test) => {
    const { upstream, mirror } = await open(test);
    for (const name of ["constructor", "prototype", "tostring", "valueof"]) {
      assertAbsent(
        await mirror.get(`/v2/${name}/manifests/v`),
        "MANIFEST_UNKNOWN",
      );
    }
    for (const path of [
      "/v2/__proto__/manifests/v",
      "/v2/pub/app/manifests/v?ns=__proto__",
      "/v2/pub/app/tags/list?__proto__[n]=1&constructor=x",
    ]) {
      const { status } = await mirror.get(path, {
        Authorization: basic("__proto__", "x"),
      });
      assert.ok([400, 404].includes(status), path);
    }
    assert.equal((await mirror.get("/v2/")).status, 200);
    assert.equal(upstream.count({ repository: "constructor" }), 0);
  });
});

void describe("anonymous clients", () => {
  for (const [networks, want] of [
    [[], 200],
    [["127.0.0.0/8"], 200],
    [["192.0.2.0/24", "fd00::/8"], 401],
  ] as const) {
    void it(`are ${want === 200 ? "admitted" : "challenged"} if anonymousNetworks is ${JSON.stringify(networks)}`, async (test) => {
      const { mirror } = await open(test, {
        access: { anonymousNetworks: networks },
      });
      // The X-Forwarded-For of a client is not trusted.
      for (const headers of [
        {},
        { "X-Forwarded-For": "192.0.2.1", Forwarded: "for=192.0.2.1" },
        { "X-Real-IP": "192.0.2.1", "X-Forwarded-Host": "192.0.2.1" },
      ]) {
        assert.equal((await mirror.get("/v2/", headers)).status, want);
      }
      assert.equal((await mirror.get("/v2/", ALICE)).status, 200);
      assert.equal((await mirror.get("/v2", ALICE)).status, 200);
    });
  }

  void it("may send any credentials if access is not configured", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", SECRET, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    for (const authorization of [
      "Basic Og==",
      "Basic %%",
      basic("hub", "secret"),
      "Bearer x",
      "Negotiate x",
    ]) {
      const headers = { Authorization: authorization };
      assert.equal((await mirror.get("/v2/", headers)).status, 200);
      const { status } = await mirror.get("/v2/a/manifests/v", headers);
      assert.equal(status, 200);
    }
    for (const { headers } of upstream.requests()) {
      assert.equal(headers["authorization"], undefined);
    }
  });
});

void describe("a log-in", () => {
  void it("that fails too often is answered 429 with Retry-After, and others still succeed", async (test) => {
    const { mirror } = await open(test, { access: { anonymous: "none" } });
    const wrong = { Authorization: basic("alice", "wrong-canary") };
    const statuses: number[] = [];
    for (let i = 0; i < 15; i++) {
      statuses.push((await mirror.get("/v2/", wrong)).status);
    }
    assert.deepEqual(statuses, [
      ...Array<number>(10).fill(401),
      ...Array<number>(5).fill(429),
    ]);
    const limited = await mirror.get("/v2/", wrong);
    assert.equal(errorCode(limited), "TOOMANYREQUESTS");
    assert.equal(limited.headers["retry-after"], "6");
    mirror.clock.advance(6_000);
    assert.equal((await mirror.get("/v2/", ALICE)).status, 200);
    for (let i = 0; i < 20; i++) await mirror.get("/v2/", wrong);
    assert.equal((await mirror.get("/v2/", ALICE)).status, 200);
  });

  void it("leaves no secret in the log, nor a user name that may be a password", async (test) => {
    const { mirror } = await open(test, { access: { anonymous: "none" } });
    const canaries: readonly Record<string, string>[] = [
      { Authorization: basic("alice", "canary-1") },
      { Authorization: basic("canary-2", "pw") },
      { Authorization: "Bearer canary-3.canary-3.canary-3" },
      { Authorization: "Canary-4 canary-4", Cookie: "canary-5" },
      { "Proxy-Authorization": "Basic canary-6" },
    ];
    for (const headers of canaries) {
      assert.equal((await mirror.get("/v2/?x=canary-7", headers)).status, 401);
    }
    const { status } = await mirror.get("http://u:canary-8@h/v2/", ALICE);
    assert.equal(status, 400);
    assert.equal((await mirror.get("/v2/", ALICE)).status, 200);
    const log = JSON.stringify(mirror.log);
    assert.doesNotMatch(log, /canary-\d/i);
    assert.ok(mirror.log.some(({ user }) => user === "alice"));
    const failed = mirror.log.filter(
      ({ msg }) => msg === "failed log-in of a client",
    );
    assert.deepEqual(
      failed.map(({ user }) => user),
      ["alice", undefined, undefined, undefined],
    );
  });
});
