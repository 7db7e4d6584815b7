import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret, type UpstreamConfig } from "../../../src/config/config.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  errorDetail,
  startMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import type { UpstreamAuth } from "../../support/scripted-tokens.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "refusals" });
const { manifest: MANIFEST, config: CONFIG } = IMAGE;
const TTL_MS = 600_000;
const NOT_FOUND_TTL_MS = 30_000;
const PASSWORD = "canary-password";
const CREDENTIALS: Partial<UpstreamConfig> = {
  credentials: [{ username: "u", password: new Secret(PASSWORD) }],
};
const BEARER: UpstreamAuth = { scheme: "bearer", users: { u: PASSWORD } };
const BASIC: UpstreamAuth = { scheme: "basic", users: { u: PASSWORD } };

/** Every kind of request to a repository. */
const PATHS = [
  "/v2/a/manifests/v",
  `/v2/a/manifests/${MANIFEST.digest}`,
  `/v2/a/blobs/${CONFIG.digest}`,
  "/v2/a/tags/list",
  `/v2/a/referrers/${MANIFEST.digest}`,
];

function assertIsRefusal(
  response: RawResponse,
  status: number,
  code: string,
  cacheStatus: string,
): void {
  assert.equal(response.status, status);
  assert.equal(errorCode(response), code);
  assert.equal(cacheStatusOf(response), cacheStatus);
  assert.equal(response.headers["content-type"], "application/json");
  assert.equal(response.headers["www-authenticate"], undefined);
  assert.doesNotMatch(response.body.toString(), /scripted/);
}

function limited(retryAfter?: string): Misbehaviour {
  return { status: 429, headers: { "retry-after": retryAfter } };
}

void describe("an upstream that refuses the mirror", () => {
  for (const [name, auth] of [
    ["a fresh token", BEARER],
    ["a request", undefined],
  ] as const) {
    void it(`is 404 for ${name} without credentials, and the challenge is not passed on`, async (test) => {
      const upstream = await ScriptedUpstream.start(
        test,
        auth === undefined ? {} : { auth },
      );
      upstream.content.addImage("a", IMAGE, "v");
      upstream.deny("a");
      const status = auth === undefined ? 403 : 401;
      for (const path of PATHS) {
        const mirror = await startMirror(test, [upstreamOf(upstream)]);
        assertIsRefusal(
          await mirror.get(path),
          404,
          "NAME_UNKNOWN",
          `fwd=miss; fwd-status=${status}`,
        );
        upstream.forgetRequests();
        assertIsRefusal(
          await mirror.get(path),
          404,
          "NAME_UNKNOWN",
          "hit; detail=negative",
        );
        assert.equal(upstream.count(), 0);
        mirror.clock.advance(NOT_FOUND_TTL_MS);
        assert.equal((await mirror.get(path)).status, 404);
        assert.notEqual(upstream.count(), 0);
      }
    });
  }

  for (const [name, auth, status] of [
    ["token", BEARER, 401],
    ["password", BASIC, 403],
  ] as const) {
    void it(`is 403 for a valid ${name} that may not pull`, async (test) => {
      const upstream = await ScriptedUpstream.start(test, { auth });
      upstream.content.addImage("a", IMAGE, "v");
      upstream.deny("a");
      for (const path of PATHS) {
        const mirror = await startMirror(test, [
          upstreamOf(upstream, CREDENTIALS),
        ]);
        assertIsRefusal(
          await mirror.get(path),
          403,
          "DENIED",
          `fwd=miss; fwd-status=${status}`,
        );
      }
    });
  }

  void it("is 403 if the password is wrong, which no log or response contains", async (test) => {
    const upstream = await ScriptedUpstream.start(test, {
      auth: { ...BEARER, users: { u: "another" } },
    });
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream, CREDENTIALS)]);
    for (const path of PATHS) {
      const got = await mirror.get(path);
      assert.deepEqual([got.status, errorCode(got)], [403, "DENIED"]);
      assert.doesNotMatch(got.body.toString(), /canary/);
    }
    assert.doesNotMatch(JSON.stringify(mirror.log), /canary|Basic /);
    assert.equal(upstream.count({ kind: "token" }), 1);
  });

  void it("has its cached tag served stale with credentials, complete or not", async (test) => {
    const upstream = await ScriptedUpstream.start(test, { auth: BASIC });
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream, CREDENTIALS)]);
    await mirror.get("/v2/a/manifests/v");
    mirror.clock.advance(TTL_MS);
    upstream.deny("a");
    const stale = await mirror.get("/v2/a/manifests/v");
    assert.deepEqual([stale.status, stale.sha256], [200, MANIFEST.digest]);
    assert.equal(
      cacheStatusOf(stale),
      "fwd=stale; fwd-status=403; detail=stale",
    );
  });

  void it("has its cached tags refused without credentials", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await pullImage(mirror, "a", "v");
    mirror.clock.advance(TTL_MS);
    upstream.deny("a");
    for (const status of ["fwd=miss; fwd-status=403", "hit; detail=negative"]) {
      upstream.forgetRequests();
      assertIsRefusal(
        await mirror.get("/v2/a/manifests/v"),
        404,
        "NAME_UNKNOWN",
        status,
      );
    }
    assert.equal(upstream.count(), 0);
    await mirror.operate("POST", "/images/registry.example/a:v/refresh");
    assert.equal(upstream.count(), 1);
  });

  void it("is retried immediately after a reload added credentials", async (test) => {
    const upstream = await ScriptedUpstream.start(test, { auth: BASIC });
    upstream.content.addImage("a", IMAGE, "v");
    for (const path of PATHS) {
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      assert.equal((await mirror.get(path)).status, 404);
      await mirror.reload({ upstreams: [upstreamOf(upstream, CREDENTIALS)] });
      assert.equal((await mirror.get(path)).status, 200);
    }
  });

  void it("is asked for each request with credentials, which may be renewed at any time", async (test) => {
    const upstream = await ScriptedUpstream.start(test, { auth: BASIC });
    upstream.content.addImage("a", IMAGE, "v");
    upstream.deny("a");
    const mirror = await startMirror(test, [upstreamOf(upstream, CREDENTIALS)]);
    for (const path of PATHS) {
      for (let i = 0; i < 2; i++) {
        upstream.forgetRequests();
        assert.equal((await mirror.get(path)).status, 403);
        assert.notEqual(upstream.count(), 0);
      }
    }
  });

  void it("never receives the credentials of a client", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    for (const authorization of [
      "Basic Og==",
      "Basic Y2FuYXJ5OmNhbmFyeQ==",
      "Bearer canary",
      "x",
    ]) {
      for (const path of ["/v2/", "/v2/a/manifests/v"]) {
        const got = await mirror.get(path, {
          Authorization: authorization,
          Cookie: "canary=1",
        });
        assert.equal(got.status, 200);
      }
    }
    for (const { headers } of upstream.requests()) {
      assert.equal(headers["authorization"], undefined);
      assert.equal(headers["cookie"], undefined);
    }
    assert.doesNotMatch(JSON.stringify(mirror.log), /canary|Y2FuYXJ5/);
  });
});

void describe("an upstream's rate limit", () => {
  for (const retryAfter of ["60", "3", "garbage", undefined]) {
    void it(`is 429 with at most 10 s if nothing is cached and Retry-After is ${retryAfter}`, async (test) => {
      for (const path of PATHS) {
        const upstream = await ScriptedUpstream.start(test);
        upstream.content.addImage("a", IMAGE, "v");
        upstream.when({}, limited(retryAfter));
        const mirror = await startMirror(test, [upstreamOf(upstream)]);
        const got = await mirror.get(path);
        assertIsRefusal(
          got,
          429,
          "TOOMANYREQUESTS",
          "fwd=miss; fwd-status=429",
        );
        const seconds = Number(got.headers["retry-after"]);
        assert.ok(seconds >= 1 && seconds <= 10, String(seconds));
        // containerd retries five times in a row.
        for (let i = 0; i < 5; i++) {
          assert.equal((await mirror.get(path)).status, 429);
        }
        assert.equal(upstream.count(), 1);
      }
    });
  }

  void it("of less than a second is waited for within the request", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when({}, limited("1.16ms"), { times: 1 });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const got = await mirror.get("/v2/a/manifests/v");
    assert.deepEqual([got.status, got.sha256], [200, MANIFEST.digest]);
  });
});

void describe("an upstream that cannot be reached", () => {
  for (const [name, fault, status] of [
    ["refuses connections", undefined, 502],
    ["answers 500", { status: 500 }, 502],
    ["answers 503", { status: 503 }, 502],
    ["answers garbage", { raw: "SSH-2.0-x\r\n" }, 502],
    ["never answers", { stallAt: "headers" }, 504],
  ] satisfies readonly (readonly [
    string,
    Misbehaviour | undefined,
    number,
  ])[]) {
    void it(`is ${status} UNAVAILABLE for every request if it ${name}`, async (test) => {
      const upstream = await ScriptedUpstream.start(test);
      upstream.content.addImage("a", IMAGE, "v");
      if (fault === undefined) await upstream.stop();
      else upstream.when({}, fault);
      await Promise.all(
        PATHS.map(async (path) => {
          const mirror = await startMirror(test, [
            upstreamOf(upstream, { headersTimeoutMs: 300 }),
          ]);
          const got = await mirror.get(path);
          assert.deepEqual(
            [got.status, errorCode(got)],
            [status, "UNAVAILABLE"],
          );
          assert.match(cacheStatusOf(got) ?? "", /^fwd=miss/);
        }),
      );
    });
  }

  void it("is 503 with Retry-After of at most 10 s while its breaker is open", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await upstream.stop();
    assert.equal((await mirror.get(PATHS[0] ?? "")).status, 502);
    for (const path of PATHS) {
      const got = await mirror.get(path);
      assertIsRefusal(got, 503, "UNAVAILABLE", "hit; detail=negative");
      const seconds = Number(got.headers["retry-after"]);
      assert.ok(seconds >= 1 && seconds <= 10, String(seconds));
    }
  });

  void it("is 502 if its certificate is not trusted, which only the log names", async (test) => {
    const tls = createCertificateAuthority().issue();
    const upstream = await ScriptedUpstream.start(test, { tls });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const got = await mirror.get("/v2/a/manifests/v");
    assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
    assert.equal(upstream.count(), 0);
    assert.doesNotMatch(got.body.toString(), /127\.0\.0\.1/);
    assert.match(JSON.stringify(mirror.log), /127\.0\.0\.1/);
  });
});

void describe("offline", () => {
  void it("answers fresh and stale tags, digests and blobs, and dials nothing", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await pullImage(mirror, "a", "v");
    upstream.forgetRequests();
    await mirror.restart({ offline: true });
    assert.equal(
      cacheStatusOf(await mirror.get("/v2/a/manifests/v")),
      "hit; ttl=600",
    );
    mirror.clock.advance(TTL_MS);
    const [stale] = await pullImage(mirror, "a", "v");
    assert.equal(stale && cacheStatusOf(stale), "hit; detail=stale");
    assert.match(stale?.headers["warning"] ?? "", /^299 /);
    const list = await mirror.get("/v2/a/tags/list");
    assert.deepEqual(JSON.parse(list.body.toString()), {
      name: "a",
      tags: ["v"],
    });
    assert.equal(cacheStatusOf(list), "hit; detail=stale");
    assert.equal(upstream.count(), 0);
  });

  void it("is 404 with its reason for content that is missing or incomplete", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    await mirror.get("/v2/a/manifests/v");
    upstream.forgetRequests();
    await mirror.restart({ offline: true });
    mirror.clock.advance(TTL_MS);
    for (const [path, code] of [
      ["/v2/a/manifests/v", "MANIFEST_UNKNOWN"],
      ["/v2/a/manifests/w", "MANIFEST_UNKNOWN"],
      [`/v2/a/manifests/${CONFIG.digest}`, "MANIFEST_UNKNOWN"],
      [`/v2/a/blobs/${CONFIG.digest}`, "BLOB_UNKNOWN"],
      ["/v2/b/tags/list", "NAME_UNKNOWN"],
      [`/v2/a/referrers/${MANIFEST.digest}`, "NAME_UNKNOWN"],
    ] as const) {
      const got = await mirror.get(path);
      assert.deepEqual([got.status, errorCode(got)], [404, code], path);
      assert.equal(errorDetail(got), "offline");
      const head = await mirror.head(path);
      assert.equal(head.status, 404);
    }
    assert.equal(upstream.count(), 0);
  });
});
