import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret, type UpstreamConfig } from "../../../src/config/config.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "gone" });
const NEXT = buildImage({ seed: "gone, next" });
const TAG = "/v2/a/manifests/v";
const PIN = "/images/registry.example/a:v/pin";
const TTL_MS = 600_000;
const NOT_FOUND_TTL_MS = 30_000;
const HOUR_MS = 3_600_000;

interface Scene {
  readonly upstream: ScriptedUpstream;
  readonly config: UpstreamConfig;
  readonly mirror: TestMirror;
}

/** A mirror with a complete image and an expired tag. */
async function setUp(
  test: AfterTest,
  staleIfGoneMs: number,
  more: Partial<UpstreamConfig> = {},
): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  const base = upstreamOf(upstream, more);
  const config = { ...base, freshness: { ...base.freshness, staleIfGoneMs } };
  const mirror = await startMirror(test, [config]);
  await pullImage(mirror, "a", "v");
  mirror.clock.advance(TTL_MS);
  upstream.forgetRequests();
  return { upstream, config, mirror };
}

function assertIsStale(got: RawResponse, status: string): void {
  assert.deepEqual([got.status, got.sha256], [200, IMAGE.manifest.digest]);
  assert.equal(cacheStatusOf(got), status);
  assert.match(got.headers["warning"] ?? "", /^299 - "entrepot: stale/);
}

async function hasTag(mirror: TestMirror): Promise<boolean> {
  const { status } = await mirror.operate(
    "GET",
    "/images/registry.example/a:v",
  );
  return status === 200;
}

/** Ways in which the upstream stops serving the image. */
const WAYS: Readonly<Record<string, (upstream: ScriptedUpstream) => void>> = {
  "404": (upstream) => upstream.content.removeTag("a", "v"),
  "401": (upstream) => upstream.when({}, { status: 401 }),
  "403": (upstream) => upstream.when({}, { status: 403 }),
};

void describe("a cached tag that is gone upstream", () => {
  for (const [status, remove] of Object.entries(WAYS)) {
    void it(`by ${status} is served for staleIfGone from the first such answer, over a restart, and is dropped then`, async (test) => {
      const { upstream, config, mirror } = await setUp(test, HOUR_MS);
      remove(upstream);
      assertIsStale(
        await mirror.get(TAG),
        `fwd=stale; fwd-status=${status}; detail=stale`,
      );
      // Revalidated after notFoundTtl at the earliest.
      upstream.forgetRequests();
      assertIsStale(await mirror.get(TAG), "hit; detail=stale");
      assert.equal(upstream.count(), 0);
      mirror.clock.advance(NOT_FOUND_TTL_MS);
      assertIsStale(
        await mirror.get(TAG),
        `fwd=stale; fwd-status=${status}; detail=stale`,
      );
      await pullImage(mirror, "a", "v");
      await mirror.restart({ upstreams: [config] });
      mirror.clock.advance(HOUR_MS - NOT_FOUND_TTL_MS - 1);
      assertIsStale(
        await mirror.get(TAG),
        `fwd=stale; fwd-status=${status}; detail=stale`,
      );
      mirror.clock.advance(NOT_FOUND_TTL_MS);
      assert.equal((await mirror.get(TAG)).status, 404);
      assert.equal(await hasTag(mirror), false);
      const kept = await mirror.get(`/v2/a/manifests/${IMAGE.manifest.digest}`);
      assert.equal(kept.sha256, IMAGE.manifest.digest);
    });

    void it(`by ${status} is removed immediately by default, and its digest stays`, async (test) => {
      const { upstream, mirror } = await setUp(test, 0);
      remove(upstream);
      assert.equal((await mirror.get(TAG)).status, 404);
      assert.equal(await hasTag(mirror), false);
      const kept = await mirror.get(`/v2/a/manifests/${IMAGE.manifest.digest}`);
      assert.equal(kept.sha256, IMAGE.manifest.digest);
    });

    void it(`by ${status} is served as long as it is pinned, with its blobs, also after refresh and by digest`, async (test) => {
      const { upstream, mirror } = await setUp(test, 0);
      assert.equal((await mirror.operate("PUT", PIN)).status, 200);
      remove(upstream);
      for (let day = 0; day < 3; day++) {
        assertIsStale(
          await mirror.get(TAG),
          `fwd=stale; fwd-status=${status}; detail=stale`,
        );
        const refreshed = await mirror.operate(
          "POST",
          "/images/registry.example/a:v/refresh",
        );
        assert.notEqual(refreshed.status, 200);
        await pullImage(mirror, "a", "v");
        mirror.clock.advance(24 * HOUR_MS);
      }
      assert.equal(await hasTag(mirror), true);
      await mirror.operate("DELETE", PIN);
      assert.equal((await mirror.get(TAG)).status, 404);
      assert.equal(await hasTag(mirror), false);
    });
  }

  void it("is not reported as fresh if a refresh noticed it first", async (test) => {
    const { upstream, mirror } = await setUp(test, HOUR_MS);
    assert.equal((await mirror.get(TAG)).status, 200);
    upstream.content.removeTag("a", "v");
    await mirror.operate("POST", "/images/registry.example/a:v/refresh");
    assertIsStale(await mirror.get(TAG), "hit; detail=stale");
  });

  void it("is fresh again if it returns, and staleIfGone begins again if it disappears again", async (test) => {
    const { upstream, mirror } = await setUp(test, HOUR_MS);
    upstream.content.removeTag("a", "v");
    await mirror.get(TAG);
    mirror.clock.advance(HOUR_MS / 2);
    upstream.content.addImage("a", NEXT, "v");
    const back = await mirror.get(TAG);
    assert.equal(back.sha256, NEXT.manifest.digest);
    assert.equal(back.headers["warning"], undefined);
    assert.match(cacheStatusOf(await mirror.get(TAG)) ?? "", /^hit; ttl=/);
    upstream.content.removeTag("a", "v");
    mirror.clock.advance(HOUR_MS - 1_000);
    assert.equal((await mirror.get(TAG)).status, 200);
    mirror.clock.advance(HOUR_MS - 1_000);
    assert.equal((await mirror.get(TAG)).status, 200);
    mirror.clock.advance(NOT_FOUND_TTL_MS);
    assert.equal((await mirror.get(TAG)).status, 404);
  });

  void it("is served while the upstream is down or the mirror is offline, until staleIfGone ends", async (test) => {
    const { upstream, config, mirror } = await setUp(test, HOUR_MS);
    upstream.content.removeTag("a", "v");
    await mirror.get(TAG);
    await upstream.stop();
    mirror.clock.advance(NOT_FOUND_TTL_MS);
    assert.equal((await mirror.get(TAG)).status, 200);
    await mirror.restart({ upstreams: [config], offline: true });
    assertIsStale(await mirror.get(TAG), "hit; detail=stale");
    mirror.clock.advance(HOUR_MS);
    assert.equal((await mirror.get(TAG)).status, 404);
  });

  void it("is served even if some of its blobs were never fetched", async (test) => {
    const { upstream, mirror } = await setUp(test, HOUR_MS);
    upstream.content.addImage("b", NEXT, "v");
    await mirror.get("/v2/b/manifests/v");
    mirror.clock.advance(TTL_MS);
    upstream.content.removeTag("b", "v");
    const got = await mirror.get("/v2/b/manifests/v");
    assert.deepEqual([got.status, got.sha256], [200, NEXT.manifest.digest]);
  });

  for (const status of [401, 403]) {
    void it(`is not gone because of a ${status} to the mirror's own credentials: they may have expired`, async (test) => {
      const { upstream, mirror } = await setUp(test, 0, {
        credentials: [{ username: "acme", password: new Secret("canary") }],
      });
      upstream.when({}, { status });
      assertIsStale(
        await mirror.get(TAG),
        `fwd=stale; fwd-status=${status}; detail=stale`,
      );
      assert.equal(await hasTag(mirror), true);
    });
  }
});
