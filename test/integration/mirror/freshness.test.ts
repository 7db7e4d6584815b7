import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { FreshnessConfig } from "../../../src/config/config.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const OLD = buildImage({ seed: "old" });
const NEW = buildImage({ seed: "new" });
const TAG = "/v2/a/manifests/v";
const TTL_MS = 600_000;
const FRESHNESS: FreshnessConfig = {
  tagTtlMs: TTL_MS,
  rules: [],
  staleIfGoneMs: 0,
  staleIfErrorMs: Infinity,
  staleWhileRevalidateMs: 0,
  notFoundTtlMs: 30_000,
};

/** An upstream with `a:v`, and a mirror that has just fetched it. */
async function setUp(
  test: AfterTest,
  freshness: Partial<FreshnessConfig> = {},
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", OLD, "v");
  const mirror = await startMirror(test, [
    upstreamOf(upstream, { freshness: { ...FRESHNESS, ...freshness } }),
  ]);
  assert.equal((await mirror.get(TAG)).status, 200);
  upstream.forgetRequests();
  return { upstream, mirror };
}

function asked(upstream: ScriptedUpstream): string[] {
  return upstream
    .requests()
    .map(({ method, reference }) => `${method} ${reference}`);
}

void describe("a cached tag", () => {
  void it("reports how long it stays fresh and how old it is", async (test) => {
    const { upstream, mirror } = await setUp(test);
    mirror.clock.advance(61_500);
    const hit = await mirror.get(TAG);
    assert.equal(cacheStatusOf(hit), "hit; ttl=538");
    assert.equal(hit.headers["age"], "61");
    assert.equal(hit.headers["warning"], undefined);
    assert.equal(upstream.count(), 0);
  });

  void it("is confirmed by one HEAD when its time to live is over, and is fresh again", async (test) => {
    const { upstream, mirror } = await setUp(test);
    mirror.clock.advance(TTL_MS);
    const confirmed = await mirror.get(TAG);
    assert.equal(confirmed.sha256, OLD.manifest.digest);
    assert.equal(
      cacheStatusOf(confirmed),
      "fwd=stale; fwd-status=200; detail=revalidated",
    );
    assert.equal(confirmed.headers["warning"], undefined);
    mirror.clock.advance(TTL_MS - 1_000);
    assert.equal(cacheStatusOf(await mirror.get(TAG)), "hit; ttl=1");
    assert.deepEqual(asked(upstream), ["HEAD v"]);
  });

  void it("that moved is fetched again, and its former manifest stays stored", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addImage("a", NEW, "v");
    mirror.clock.advance(TTL_MS);
    const moved = await mirror.get(TAG);
    assert.equal(moved.sha256, NEW.manifest.digest);
    assert.equal(cacheStatusOf(moved), "fwd=stale; fwd-status=200; stored");
    assert.deepEqual(asked(upstream), ["HEAD v", `GET ${NEW.manifest.digest}`]);
    const old = await mirror.get(`/v2/a/manifests/${OLD.manifest.digest}`);
    assert.equal(old.sha256, OLD.manifest.digest);
    assert.equal(cacheStatusOf(old), "hit");
    upstream.forgetRequests();
    upstream.content.addImage("a", OLD, "v");
    mirror.clock.advance(TTL_MS);
    const back = await mirror.get(TAG);
    assert.equal(back.sha256, OLD.manifest.digest);
    assert.deepEqual(asked(upstream), ["HEAD v"]);
  });

  void it("has the time to live of the first rule that matches", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    for (const tag of ["latest", "1.2.3", "edge"]) {
      upstream.content.addImage("a/b", OLD, tag);
    }
    const rules = [
      { match: "**:latest", ttlMs: 60_000 },
      { match: "**:*.*.*", ttlMs: 86_400_000 },
      { match: "**", ttlMs: 5_000 },
    ];
    const mirror = await startMirror(test, [
      upstreamOf(upstream, { freshness: { ...FRESHNESS, rules } }),
    ]);
    for (const [tag, ttl] of [
      ["latest", 60],
      ["1.2.3", 86_400],
      ["edge", 5],
    ] as const) {
      await mirror.get(`/v2/a/b/manifests/${tag}`);
      const hit = await mirror.get(`/v2/a/b/manifests/${tag}`);
      assert.equal(cacheStatusOf(hit), `hit; ttl=${ttl}`);
    }
  });

  void it("with an infinite time to live is always a hit", async (test) => {
    const { mirror } = await setUp(test, { tagTtlMs: Infinity });
    mirror.clock.advance(10 * 365 * 86_400_000);
    assert.equal(cacheStatusOf(await mirror.get(TAG)), "hit");
  });

  void it("is revalidated after the wall clock was set back", async (test) => {
    const { upstream, mirror } = await setUp(test);
    mirror.clock.setWall(Date.UTC(2016, 0, 1));
    const got = await mirror.get(TAG);
    assert.equal(
      cacheStatusOf(got),
      "fwd=stale; fwd-status=200; detail=revalidated",
    );
    assert.deepEqual(asked(upstream), ["HEAD v"]);
  });

  void it("that is gone upstream is dropped, and its digest kept", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.removeTag("a", "v");
    mirror.clock.advance(TTL_MS);
    for (const status of ["fwd=miss; fwd-status=404", "hit; detail=negative"]) {
      const gone = await mirror.get(TAG);
      assert.deepEqual(
        [gone.status, errorCode(gone)],
        [404, "MANIFEST_UNKNOWN"],
      );
      assert.equal(cacheStatusOf(gone), status);
    }
    assert.deepEqual(asked(upstream), ["HEAD v", "GET v"]);
    assert.equal(
      await mirror.metric('entrepot_storage_objects{kind="tag"}'),
      0,
    );
    const digest = await mirror.get(`/v2/a/manifests/${OLD.manifest.digest}`);
    assert.equal(cacheStatusOf(digest), "hit");
  });
});

void describe("a negative answer", () => {
  void it("is given from memory for its time to live, and the tag appears after a push", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const path = "/v2/a/manifests/next";
    for (let i = 0; i < 5; i++) {
      for (const method of ["HEAD", "GET"]) {
        const got = await mirror.start(path, { method }).response;
        assert.equal(got.status, 404);
        assert.notEqual(got.headers["content-length"], "0");
      }
    }
    assert.deepEqual(asked(upstream), ["GET next"]);
    upstream.content.addImage("a", NEW, "next");
    mirror.clock.advance(29_999);
    assert.equal((await mirror.get(path)).status, 404);
    mirror.clock.advance(1);
    assert.equal((await mirror.get(path)).sha256, NEW.manifest.digest);
  });

  void it("of a manifest's digest and of a blob's digest costs one request each", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const kind of ["manifests", "blobs"]) {
      upstream.forgetRequests();
      const path = `/v2/a/${kind}/${NEW.config.digest}`;
      for (let i = 0; i < 3; i++) {
        const got = await mirror.get(path);
        assert.equal(got.status, 404);
        assert.equal(
          errorCode(got),
          kind === "blobs" ? "BLOB_UNKNOWN" : "MANIFEST_UNKNOWN",
        );
        assert.equal(
          cacheStatusOf(got),
          i === 0 ? "fwd=miss; fwd-status=404" : "hit; detail=negative",
        );
      }
      assert.equal(upstream.count(), 1);
    }
  });

  void it("writes no row for a name that the upstream does not have", async (test) => {
    const { mirror } = await setUp(test);
    for (let i = 0; i < 20; i++) {
      await mirror.get(`/v2/random${i}/manifests/v`);
      await mirror.get(`/v2/random${i}/blobs/${NEW.config.digest}`);
      await mirror.get(`/v2/random${i}/tags/list`);
    }
    const catalog = await mirror.get("/v2/_catalog");
    assert.deepEqual(JSON.parse(catalog.body.toString()), {
      repositories: ["registry.example/a"],
    });
  });
});

void describe("a tag that may be answered while it is revalidated", () => {
  const SWR = { staleWhileRevalidateMs: 60_000 };

  void it("is answered stale immediately, with one HEAD in the background", async (test) => {
    const { upstream, mirror } = await setUp(test, SWR);
    const barrier = new Barrier();
    upstream.when({ method: "HEAD" }, { hold: { at: "headers", barrier } });
    upstream.content.addImage("a", NEW, "v");
    mirror.clock.advance(TTL_MS);
    for (let i = 0; i < 5; i++) {
      const stale = await mirror.get(TAG);
      assert.deepEqual(
        [stale.status, stale.sha256],
        [200, OLD.manifest.digest],
      );
      assert.equal(cacheStatusOf(stale), "hit; detail=stale");
      assert.equal(stale.headers["age"], "600");
      assert.match(stale.headers["warning"] ?? "", /^299 - "entrepot: stale/);
    }
    assert.deepEqual(asked(upstream), ["HEAD v"]);
    barrier.release();
    await upstream.ended({ method: "GET" }, 1);
    await mirror.answersWith(TAG, (got) => got.sha256 === NEW.manifest.digest);
    assert.equal(upstream.count({ method: "HEAD" }), 1);
  });

  void it("waits for the upstream if it is older than staleWhileRevalidate", async (test) => {
    const { upstream, mirror } = await setUp(test, SWR);
    upstream.content.addImage("a", NEW, "v");
    mirror.clock.advance(TTL_MS + 60_000);
    assert.equal((await mirror.get(TAG)).sha256, NEW.manifest.digest);
  });

  void it("is answered while the upstream is down only if no blob is missing", async (test) => {
    for (const [isComplete, status] of [
      [true, 200],
      [false, 503],
    ] as const) {
      const { upstream, mirror } = await setUp(test, SWR);
      if (isComplete) await pullImage(mirror, "a", "v");
      await upstream.stop();
      // Another request has noticed it.
      assert.equal((await mirror.get("/v2/a/manifests/other")).status, 502);
      mirror.clock.advance(TTL_MS);
      // The probe that is then due fails during or after the answer.
      await mirror.get(TAG);
      assert.equal((await mirror.get(TAG)).status, status);
    }
  });

  void it("is removed if the background revalidation receives 404", async (test) => {
    const { upstream, mirror } = await setUp(test, SWR);
    upstream.content.removeTag("a", "v");
    mirror.clock.advance(TTL_MS);
    assert.equal(cacheStatusOf(await mirror.get(TAG)), "hit; detail=stale");
    await upstream.ended({ method: "HEAD" }, 1);
    await mirror.answersWith(TAG, (got) => got.status === 404);
    assert.deepEqual(asked(upstream), ["HEAD v", "GET v"]);
  });
});
