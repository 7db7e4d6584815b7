import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedBudget } from "../../support/scripted-budget.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const OLD = buildImage({ seed: "head, old" });
const NEW = buildImage({ seed: "head, new" });
const TAG = "/v2/a/manifests/v";
const TTL_MS = 600_000;
const NOT_FOUND_TTL_MS = 30_000;

interface Scene {
  readonly upstream: ScriptedUpstream;
  readonly mirror: TestMirror;
  readonly clock: FakeClock;
}

/** A mirror with an expired tag. */
async function setUp(
  test: AfterTest,
  options: { readonly ttlMs?: number; readonly hasTokens?: boolean } = {},
): Promise<Scene> {
  const { ttlMs = TTL_MS, hasTokens = false } = options;
  const clock = new FakeClock();
  const upstream = await ScriptedUpstream.start(test, {
    clock,
    ...(hasTokens ? { auth: { scheme: "bearer", realm: "origin" } } : {}),
  });
  upstream.content.addImage("a", OLD, "v");
  const config = upstreamOf(upstream);
  const mirror = await startMirror(
    test,
    [{ ...config, freshness: { ...config.freshness, tagTtlMs: ttlMs } }],
    { clock },
  );
  assert.equal((await mirror.get(TAG)).status, 200);
  clock.advance(ttlMs);
  upstream.forgetRequests();
  return { upstream, mirror, clock };
}

function methods({ upstream }: Scene): string[] {
  return upstream.requests({ kind: "manifest" }).map(({ method }) => method);
}

void describe("a HEAD that fails", () => {
  for (const status of [400, 401, 403, 404, 405, 406, 500, 502, 504]) {
    void it(`with ${status} is followed by a GET, which confirms the tag or moves it`, async (test) => {
      const scene = await setUp(test, { hasTokens: status === 401 });
      const { upstream, mirror, clock } = scene;
      upstream.when({ kind: "manifest", method: "HEAD" }, { status });
      const same = await mirror.get(TAG);
      assert.equal(
        cacheStatusOf(same),
        "fwd=stale; fwd-status=200; detail=revalidated",
      );
      assert.equal(same.sha256, OLD.manifest.digest);
      assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 1);
      assert.match(cacheStatusOf(await mirror.get(TAG)) ?? "", /^hit; ttl=/);

      upstream.content.addImage("a", NEW, "v");
      clock.advance(TTL_MS);
      const moved = await mirror.get(TAG);
      assert.equal(moved.sha256, NEW.manifest.digest);
      assert.equal(cacheStatusOf(moved), "fwd=stale; fwd-status=200; stored");
    });
  }

  for (const status of [403, 504]) {
    void it(`with ${status} is followed by one GET per tag and notFoundTtl, also if the tag has no time to live`, async (test) => {
      const scene = await setUp(test, { ttlMs: 0 });
      const { upstream, mirror, clock } = scene;
      upstream.when({ kind: "manifest", method: "HEAD" }, { status });
      for (let asked = 0; asked < 8; asked++) {
        const got = await mirror.get(TAG);
        assert.equal(got.sha256, OLD.manifest.digest);
        assert.equal(got.headers["warning"], undefined);
      }
      assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 1);
      clock.advance(NOT_FOUND_TTL_MS);
      upstream.content.addImage("a", NEW, "v");
      assert.equal((await mirror.get(TAG)).sha256, NEW.manifest.digest);
      assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 2);
    });
  }

  void it("is not followed by a second GET after the first one failed", async (test) => {
    const scene = await setUp(test);
    const { upstream, mirror } = scene;
    upstream.when({ kind: "manifest" }, { status: 504 });
    for (let asked = 0; asked < 2; asked++) {
      assert.equal((await mirror.get(TAG)).status, 502);
    }
    assert.deepEqual(methods(scene), ["HEAD", "GET", "HEAD"]);
  });

  void it("for many tags at the same time leaves the upstream up if the GETs succeed", async (test) => {
    const scene = await setUp(test);
    const { upstream, mirror, clock } = scene;
    const repositories = ["b", "c", "d", "e"];
    for (const name of repositories) {
      upstream.content.addImage(name, OLD, "v");
      const cold = await mirror.get(`/v2/${name}/manifests/v`);
      assert.equal(cold.status, 200);
    }
    clock.advance(TTL_MS);
    const barrier = new Barrier();
    upstream.when(
      { kind: "manifest", method: "HEAD" },
      { status: 504, hold: { at: "headers", barrier } },
    );
    const answers = repositories.map((name) =>
      mirror.get(`/v2/${name}/manifests/v`),
    );
    await barrier.arrived(repositories.length);
    barrier.release();
    for (const answer of await Promise.all(answers)) {
      assert.equal(
        cacheStatusOf(answer),
        "fwd=stale; fwd-status=200; detail=revalidated",
      );
    }
  });

  void it("with 404 drops no tag whose GET failed for another reason", async (test) => {
    const scene = await setUp(test);
    const { upstream, mirror, clock } = scene;
    upstream.when({ kind: "manifest", method: "HEAD" }, { status: 404 });
    upstream.when({ kind: "manifest", method: "GET" }, { status: 504 });
    for (let asked = 0; asked < 5; asked++) {
      assert.equal((await mirror.get(TAG)).status, 502);
    }
    assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 1);
    // Often enough that the GET rests: then none is sent, and the tag stays unconfirmed.
    for (let failed = 0; failed < 3; failed++) {
      clock.advance(NOT_FOUND_TTL_MS);
      assert.notEqual((await mirror.get(TAG)).status, 404);
    }
    upstream.clearRules();
    upstream.when({ kind: "manifest", method: "HEAD" }, { status: 404 });
    clock.advance(TTL_MS);
    const back = await mirror.get(TAG);
    assert.equal(
      cacheStatusOf(back),
      "fwd=stale; fwd-status=200; detail=revalidated",
    );
  });

  void it("is followed by no GET while the budget is conserved", async (test) => {
    const scene = await setUp(test);
    const { upstream, mirror, clock } = scene;
    const budget = new ScriptedBudget(upstream, { clock, limit: 100 });
    budget.spend(95);
    // Its answer carries the budget.
    await mirror.get(TAG);
    clock.advance(TTL_MS);
    upstream.clearRules();
    upstream.forgetRequests();
    upstream.when({ kind: "manifest", method: "HEAD" }, { status: 502 });
    assert.equal((await mirror.get(TAG)).status, 502);
    assert.equal(upstream.count({ kind: "manifest", method: "GET" }), 0);
  });

  void it("because the connection is refused is not followed by a GET", async (test) => {
    const scene = await setUp(test);
    await scene.upstream.stop();
    assert.equal((await scene.mirror.get(TAG)).status, 502);
    await scene.upstream.restart();
    assert.deepEqual(methods(scene), []);
  });
});
