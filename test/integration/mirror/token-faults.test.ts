import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret, type UpstreamConfig } from "../../../src/config/config.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "token faults" });
const TTL_MS = 600_000;
const CACHED = "/v2/a/manifests/v";
const MISSING = "/v2/b/manifests/v";
const CREDENTIALS: Partial<UpstreamConfig> = {
  credentials: [{ username: "acme", password: new Secret("canary-password") }],
};

function isSick({ target }: { readonly target: string }): boolean {
  return target.includes("sick");
}

/** A mirror with one cached image, whose upstream's realm fails afterwards. */
async function startBroken(
  test: AfterTest,
  fault: Misbehaviour,
  config: Partial<UpstreamConfig> = {},
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test, {
    auth: { scheme: "bearer", users: { acme: "canary-password" } },
  });
  for (const name of ["a", "b"]) upstream.content.addImage(name, IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream, config)]);
  await pullImage(mirror, "a", "v");
  mirror.clock.advance(TTL_MS);
  upstream.tokens?.revoke();
  upstream.forgetRequests();
  upstream.when({ kind: "token" }, fault, { beforeAuth: true });
  return { upstream, mirror };
}

void describe("a token realm", () => {
  const TABLE: readonly (readonly [
    name: string,
    fault: Misbehaviour,
    status: number,
    code: string,
  ])[] = [
    ["500", { status: 500 }, 502, "UNAVAILABLE"],
    [
      "HTML",
      {
        body: "<html>log in</html>",
        headers: { "content-type": "text/html" },
      },
      502,
      "UNAVAILABLE",
    ],
    ["200 without a token", { body: "{}" }, 502, "UNAVAILABLE"],
    [
      "a token of 1 MiB",
      { body: `{"token":"${"x".repeat(1_048_576)}"}` },
      502,
      "UNAVAILABLE",
    ],
    [
      "a token with a line break",
      { body: String.raw`{"token":"a\r\nX-Evil: 1"}` },
      502,
      "UNAVAILABLE",
    ],
    ["429", { status: 429 }, 429, "TOOMANYREQUESTS"],
    ["404", { status: 404 }, 502, "UNAVAILABLE"],
  ];
  for (const [name, fault, status, code] of TABLE) {
    for (const config of [{}, CREDENTIALS]) {
      const who = "credentials" in config ? "an account" : "anonymous requests";
      void it(`that answers ${name} to ${who} leaves cached tags stale, and is ${status} for other content`, async (test) => {
        const { upstream, mirror } = await startBroken(test, fault, config);
        const stale = await mirror.get(CACHED);
        assert.deepEqual(
          [stale.status, stale.sha256],
          [200, IMAGE.manifest.digest],
        );
        assert.match(stale.headers["cache-status"] ?? "", /detail=stale/);
        const missing = await mirror.get(MISSING);
        assert.deepEqual([missing.status, errorCode(missing)], [status, code]);
        for (const { headers, body } of [stale, missing]) {
          assert.equal(headers["www-authenticate"], undefined);
          assert.doesNotMatch(body.toString(), /canary|log in/);
        }
        assert.equal(upstream.count({ kind: "manifest", status: 200 }), 0);
      });
    }
  }

  void it("that refuses an account is asked once for all waiting requests, and other accounts still work", async (test) => {
    const { upstream, mirror } = await startBroken(
      test,
      { status: 401, body: "{}" },
      CREDENTIALS,
    );
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        const got = await mirror.get(MISSING);
        assert.deepEqual([got.status, errorCode(got)], [403, "DENIED"]);
        assert.equal((await mirror.get(CACHED)).status, 200);
      }),
    );
    // One request for each of the two scopes.
    assert.equal(upstream.count({ kind: "token" }), 2);
  });

  const SICK_FAULTS: readonly (readonly [
    name: string,
    fault: Misbehaviour,
    maxAsked: number,
  ])[] = [
    ["500", { status: 500 }, 6],
    ["504", { status: 504 }, 3],
    [
      "503 with Retry-After",
      { status: 503, headers: { "retry-after": "60" } },
      1,
    ],
    ["nothing in time", { stallAt: "headers" }, 1],
  ];
  for (const realm of ["origin", "port"] as const) {
    for (const [name, fault, maxAsked] of SICK_FAULTS) {
      const where = realm === "origin" ? "endpoint's own" : "port of its own";
      void it(`on the ${where} that answers ${name} for one repository still serves tokens for others`, async (test) => {
        const upstream = await ScriptedUpstream.start(test, {
          auth: { scheme: "bearer", realm },
        });
        upstream.content.addImage("well", IMAGE, "v");
        const mirror = await startMirror(test, [
          upstreamOf(upstream, {
            tokenRealms: ["127.0.0.1"],
            headersTimeoutMs: 300,
          }),
        ]);
        upstream.when({ kind: "token", where: isSick }, fault);
        for (let at = 0; at < 6; at++) {
          const sick = await mirror.get(`/v2/sick/manifests/v${at}`);
          assert.ok(sick.status >= 502);
        }
        assert.equal((await mirror.get("/v2/well/manifests/v")).status, 200);
        const asked = upstream.count({ kind: "token", where: isSick });
        assert.ok(asked <= maxAsked, `${asked} times`);
      });
    }
  }

  for (const retryAfter of ["60", "soon", undefined]) {
    const restMs = retryAfter === "60" ? 60_000 : 30_000;
    void it(`that answers 429 with Retry-After ${retryAfter} is not asked for ${restMs / 1_000} s`, async (test) => {
      const { upstream, mirror } = await startBroken(test, {
        status: 429,
        headers: { "retry-after": retryAfter },
      });
      for (let retry = 0; retry < 5; retry++) {
        assert.equal((await mirror.get(MISSING)).status, 429);
        assert.equal(
          (await mirror.get(`/v2/b/blobs/${IMAGE.config.digest}`)).status,
          429,
        );
      }
      assert.equal(upstream.count({ kind: "token" }), 1);
      mirror.clock.advance(restMs - 1);
      assert.equal((await mirror.get(MISSING)).status, 429);
      assert.equal(upstream.count({ kind: "token" }), 1);
      upstream.clearRules();
      mirror.clock.advance(1);
      assert.equal((await mirror.get(MISSING)).status, 200);
    });
  }
});
