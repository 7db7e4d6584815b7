import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const IMAGE = buildImage({ seed: "upstreams-api", layers: [1_000] });
const CANARY = "canary-password";

void describe("GET /api/v1/upstreams", () => {
  void it("returns endpoints, breakers, credentials by name, budgets, tokens and the last error", async (t) => {
    const upstream = await ScriptedUpstream.start(t, {
      auth: { scheme: "bearer", users: { acme: CANARY } },
    });
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when(
      { kind: "manifest" },
      {
        headers: {
          "ratelimit-limit": "200;w=21600",
          "ratelimit-remaining": "187;w=21600",
        },
      },
    );
    const dead = await ScriptedUpstream.start(t);
    await dead.stop();
    const mirror = await startMirror(t, [
      upstreamOf(upstream, {
        endpoints: [dead.origin, upstream.origin],
        credentials: [{ username: "acme", password: new Secret(CANARY) }],
      }),
    ]);
    assert.equal((await mirror.get("/v2/a/manifests/v")).status, 200);
    const answer = await mirror.operator("/api/v1/upstreams");
    assert.equal(answer.status, 200);
    assert.equal(answer.headers["cache-control"], "no-store");
    assert.match(answer.headers["content-type"] ?? "", /^application\/json/);
    const text = answer.body.toString();
    assert.doesNotMatch(text, /canary/);
    const { upstreams } = JSON.parse(text) as {
      upstreams: readonly Record<string, unknown>[];
    };
    const now = mirror.clock.nowMs();
    const lastError = {
      at: new Date(now).toISOString(),
      kind: "unreachable",
      message: `${dead.origin}: ECONNREFUSED`,
    };
    const resetsAt = new Date(now + 21_600_000).toISOString();
    const credential = { name: "acme", restsForSeconds: 0, isRefused: false };
    assert.deepEqual(upstreams, [
      {
        name: "registry.example",
        state: "up",
        tokensHeld: 1,
        endpoints: [
          {
            url: dead.origin,
            breaker: "open",
            retryAfterSeconds: 5,
            lastError,
          },
          {
            url: upstream.origin,
            breaker: "closed",
            retryAfterSeconds: 0,
            lastError: null,
          },
        ],
        credentials: [
          {
            ...credential,
            endpoint: dead.origin,
            limit: null,
            remaining: null,
            source: null,
            resetsAt: null,
          },
          {
            ...credential,
            endpoint: upstream.origin,
            limit: 200,
            remaining: 187,
            source: null,
            resetsAt,
          },
        ],
        lastError,
      },
    ]);
  });

  void it("reports down while every endpoint rests, and offline if the mirror is offline", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    await upstream.stop();
    const mirror = await startMirror(t, [upstreamOf(upstream)]);
    const state = async (): Promise<unknown> => {
      const { body } = await mirror.operator("/api/v1/upstreams");
      const { upstreams } = JSON.parse(body.toString()) as {
        upstreams: readonly { state: string }[];
      };
      return upstreams[0]?.state;
    };
    assert.equal(await state(), "up");
    await mirror.get("/v2/a/manifests/v");
    assert.equal(await state(), "down");
    await mirror.restart({ offline: true });
    assert.equal(await state(), "offline");
  });

  for (const [name, fault, kind] of [
    ["its realm fails", { status: 500 }, "unavailable"],
    ["its account is refused", { status: 401, body: "{}" }, "unauthorized"],
  ] as const) {
    void it(`reports unauthorized, with the reason, while every request fails because ${name}`, async (t) => {
      const upstream = await ScriptedUpstream.start(t, {
        auth: { scheme: "bearer", users: { acme: CANARY } },
      });
      upstream.content.addImage("a", buildImage({ seed: "auth" }), "v");
      const mirror = await startMirror(t, [
        upstreamOf(upstream, {
          credentials: [{ username: "acme", password: new Secret(CANARY) }],
        }),
      ]);
      const reported = async () => {
        const { body } = await mirror.operator("/api/v1/upstreams");
        const { upstreams } = JSON.parse(body.toString()) as {
          upstreams: readonly {
            state: string;
            lastError: { kind: string } | null;
          }[];
        };
        return [upstreams[0]?.state, upstreams[0]?.lastError?.kind];
      };
      upstream.when({ kind: "token" }, fault, { beforeAuth: true });
      assert.notEqual((await mirror.get("/v2/a/manifests/v")).status, 200);
      assert.deepEqual(await reported(), ["unauthorized", kind]);
      upstream.clearRules();
      mirror.clock.advance(60_000);
      assert.equal((await mirror.get("/v2/a/manifests/v")).status, 200);
      assert.deepEqual(await reported(), ["up", kind]);
    });
  }

  void it("is not on the registry's listener", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const mirror = await startMirror(t, [upstreamOf(upstream)]);
    assert.equal((await mirror.get("/api/v1/upstreams")).status, 404);
  });
});
