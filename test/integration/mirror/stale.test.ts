import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type UpstreamConfig } from "../../../src/config/config.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, buildMultiArch } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  type TestMirrorOptions,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "stale", layers: [2_000, 3_000] });
const OTHER = buildImage({ seed: "stale, too" });
const INDEX = buildMultiArch({ seed: "stale index" });
const TAG = "/v2/a/manifests/v";
const TTL_MS = 600_000;
const WARNING = '299 - "entrepot: stale, upstream unavailable"';

interface SetUp {
  readonly upstream: ScriptedUpstream;
  readonly mirror: TestMirror;
}

/** A mirror that pulled `a:v`, partly or completely, and whose tag has expired. */
async function setUp(
  test: AfterTest,
  {
    isComplete = true,
    overrides = {},
    options = {},
  }: {
    isComplete?: boolean;
    overrides?: Partial<UpstreamConfig>;
    options?: TestMirrorOptions;
  } = {},
): Promise<SetUp> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  upstream.content.addImage("b", OTHER, "v");
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream, overrides)],
    options,
  );
  if (isComplete) await pullImage(mirror, "a", "v");
  else await mirror.get(TAG);
  await pullImage(mirror, "b", "v");
  upstream.forgetRequests();
  mirror.clock.advance(TTL_MS);
  return { upstream, mirror };
}

function assertIsStale(
  response: RawResponse,
  status: string,
  { manifest } = IMAGE,
): void {
  assert.equal(response.status, 200);
  assert.equal(response.sha256, manifest.digest);
  assert.equal(cacheStatusOf(response), status);
  assert.equal(response.headers["warning"], WARNING);
  assert.equal(response.headers["age"], "600");
}

interface Fault {
  readonly name: string;
  readonly fault: Misbehaviour | "refused";
  /** The text after `fwd=stale` in Cache-Status. */
  readonly stale: string;
  /** The response for a tag that cannot be served stale. */
  readonly otherwise: number;
  /** Whether the next request is sent upstream. */
  readonly isAskedAgain: boolean;
}

const FAULTS: readonly Fault[] = [
  {
    name: "refuses connections",
    fault: "refused",
    stale: "",
    otherwise: 502,
    isAskedAgain: false,
  },
  {
    name: "answers 500",
    fault: { status: 500 },
    stale: "; fwd-status=500",
    otherwise: 502,
    isAskedAgain: true,
  },
  {
    name: "answers 502",
    fault: {
      status: 502,
      body: "<html>",
      headers: { "content-type": "text/html" },
    },
    stale: "; fwd-status=502",
    otherwise: 502,
    isAskedAgain: true,
  },
  {
    name: "answers 504",
    fault: { status: 504 },
    stale: "; fwd-status=504",
    otherwise: 502,
    isAskedAgain: true,
  },
  {
    name: "answers 503 with Retry-After",
    fault: { status: 503, headers: { "retry-after": "60" } },
    stale: "; fwd-status=503",
    otherwise: 502,
    isAskedAgain: false,
  },
  {
    name: "answers an HTML page",
    fault: { body: "<html>", headers: { "content-type": "text/html" } },
    stale: "; fwd-status=200",
    otherwise: 502,
    isAskedAgain: true,
  },
  {
    name: "closes the connection",
    fault: { raw: "" },
    stale: "",
    otherwise: 502,
    isAskedAgain: true,
  },
  {
    name: "never answers",
    fault: { stallAt: "headers" },
    stale: "",
    otherwise: 504,
    isAskedAgain: false,
  },
];

void describe("a stale tag", () => {
  for (const { name, fault, stale, otherwise, isAskedAgain } of FAULTS) {
    const spoil = async (upstream: ScriptedUpstream): Promise<void> => {
      if (fault === "refused") await upstream.stop();
      else upstream.when({}, fault);
    };
    const overrides = { headersTimeoutMs: 300 };
    const options = { patienceMs: 20_000 };

    void it(`is served with its blobs if the upstream ${name}`, async (test) => {
      const { upstream, mirror } = await setUp(test, { overrides, options });
      await spoil(upstream);
      assertIsStale(await mirror.get(TAG), `fwd=stale${stale}; detail=stale`);
      upstream.forgetRequests();
      assertIsStale(
        await mirror.get(TAG),
        isAskedAgain ? `fwd=stale${stale}; detail=stale` : "hit; detail=stale",
      );
      assert.equal(upstream.count() > 0, isAskedAgain);
      await pullImage(mirror, "a", "v");
    });

    void it(`is not served if a blob is missing and the upstream ${name}`, async (test) => {
      const { upstream, mirror } = await setUp(test, {
        isComplete: false,
        overrides,
      });
      await spoil(upstream);
      const failed = await mirror.get(TAG);
      assert.deepEqual(
        [failed.status, errorCode(failed)],
        [otherwise, "UNAVAILABLE"],
      );
      assert.equal(failed.headers["warning"], undefined);
      const digest = await mirror.get(
        `/v2/a/manifests/${IMAGE.manifest.digest}`,
      );
      assert.equal(cacheStatusOf(digest), "hit");
    });
  }

  for (const isComplete of [true, false]) {
    void it(`is served after a 429 if ${isComplete ? "complete" : "incomplete"}, without further upstream requests`, async (test) => {
      const { upstream, mirror } = await setUp(test, { isComplete });
      upstream.when(
        { kind: "manifest" },
        { status: 429, headers: { "retry-after": "60" } },
      );
      assertIsStale(
        await mirror.get(TAG),
        "fwd=stale; fwd-status=429; detail=stale",
      );
      for (let i = 0; i < 5; i++) {
        assertIsStale(await mirror.get(TAG), "hit; detail=stale");
      }
      assert.equal(upstream.count({ kind: "manifest" }), 1);
      const [layer] = IMAGE.layers;
      const blob = await mirror.get(`/v2/a/blobs/${layer?.digest}`);
      assert.equal(blob.sha256, layer?.digest);
      upstream.clearRules();
      mirror.clock.advance(60_000);
      assert.match(
        cacheStatusOf(
          await mirror.answersWith(TAG, ({ headers }) => !headers["warning"]),
        ) ?? "",
        /^hit; ttl=|detail=revalidated$/,
      );
    });
  }

  void it("is served while the breaker is open, and is fresh after the probe", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await upstream.stop();
    await mirror.get(TAG);
    for (let i = 0; i < 5; i++) {
      assertIsStale(await mirror.get(TAG), "hit; detail=stale");
    }
    await upstream.restart();
    assertIsStale(await mirror.get(TAG), "hit; detail=stale");
    assert.equal(upstream.count(), 0);
    mirror.clock.advance(5_000);
    const probed = await mirror.answersWith(
      TAG,
      ({ headers }) => headers["warning"] === undefined,
    );
    assert.equal(probed.sha256, IMAGE.manifest.digest);
    assert.equal(upstream.count(), 1);
  });

  void it("is an error after staleIfError", async (test) => {
    const freshness = {
      tagTtlMs: TTL_MS,
      rules: [],
      staleIfGoneMs: 0,
      staleIfErrorMs: 3_600_000,
      staleWhileRevalidateMs: 0,
      notFoundTtlMs: 30_000,
    };
    const { upstream, mirror } = await setUp(test, {
      overrides: { freshness },
    });
    await upstream.stop();
    mirror.clock.advance(3_600_000 - TTL_MS);
    assert.equal((await mirror.get(TAG)).status, 200);
    mirror.clock.advance(1);
    const failed = await mirror.get(TAG);
    assert.deepEqual([failed.status, errorCode(failed)], [503, "UNAVAILABLE"]);
    assert.ok(Number(failed.headers["retry-after"]) <= 10);
  });

  void it("is served for an image index with one complete platform", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addIndex("i", INDEX, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const [image] = INDEX.images;
    assert.ok(image);
    await mirror.get("/v2/i/manifests/v");
    await mirror.get(`/v2/i/manifests/${image.manifest.digest}`);
    await mirror.get(`/v2/i/blobs/${image.config.digest}`);
    await mirror.settled();
    mirror.clock.advance(TTL_MS);
    await upstream.stop();
    assert.equal((await mirror.get("/v2/i/manifests/v")).status, 502);
    await upstream.restart();
    mirror.clock.advance(300_000);
    const [layer] = image.layers;
    await mirror.get(`/v2/i/blobs/${layer?.digest}`);
    await mirror.settled();
    await upstream.stop();
    const stale = await mirror.get("/v2/i/manifests/v");
    assert.deepEqual(
      [stale.status, stale.sha256],
      [200, INDEX.manifest.digest],
    );
  });
});

void describe("a slow upstream", () => {
  const options = { patienceMs: 100 };

  void it("is waited for once; then every stale tag is answered immediately until it responds", async (test) => {
    const { upstream, mirror } = await setUp(test, { options });
    const barrier = new Barrier();
    upstream.when({ method: "HEAD" }, { hold: { at: "headers", barrier } });
    assertIsStale(await mirror.get(TAG), "fwd=stale; detail=stale");
    for (let i = 0; i < 3; i++) {
      assertIsStale(await mirror.get(TAG), "hit; detail=stale");
      const other = await mirror.get("/v2/b/manifests/v");
      assertIsStale(other, "hit; detail=stale", OTHER);
    }
    const digest = await mirror.get(`/v2/a/manifests/${IMAGE.manifest.digest}`);
    assert.equal(cacheStatusOf(digest), "hit");
    assert.equal(upstream.count({ method: "HEAD" }), 2);
    barrier.release();
    await mirror.answersWith(TAG, ({ headers }) => !headers["warning"]);
    assert.equal(upstream.count({ method: "HEAD" }), 2);
  });

  void it("has the tag removed if it answers 404 after the stale answer", async (test) => {
    const { upstream, mirror } = await setUp(test, { options });
    const barrier = new Barrier();
    upstream.content.removeTag("a", "v");
    upstream.when({ method: "HEAD" }, { hold: { at: "headers", barrier } });
    assertIsStale(await mirror.get(TAG), "fwd=stale; detail=stale");
    barrier.release();
    await mirror.answersWith(TAG, ({ status }) => status === 404);
    assert.deepEqual(
      upstream.requests().map(({ method }) => method),
      ["HEAD", "GET"],
    );
  });

  void it("that never responds: stale immediately after the first request, and 504 for a tag that is not cached", async (test) => {
    const { upstream, mirror } = await setUp(test, {
      options,
      overrides: { headersTimeoutMs: 500 },
    });
    upstream.blackHole();
    assertIsStale(await mirror.get(TAG), "fwd=stale; detail=stale");
    for (let i = 0; i < 10; i++) {
      assertIsStale(await mirror.get(TAG), "hit; detail=stale");
    }
    await pullImage(mirror, "a", "v");
    const cold = await mirror.get("/v2/a/manifests/cold");
    assert.ok([503, 504].includes(cold.status), String(cold.status));
    assert.equal(errorCode(cold), "UNAVAILABLE");
    upstream.blackHole(false);
    mirror.clock.advance(300_000);
    await mirror.answersWith(TAG, ({ headers }) => !headers["warning"]);
  });

  void it("is waited for until its deadline if a blob is missing", async (test) => {
    const { upstream, mirror } = await setUp(test, {
      options: { patienceMs: 0 },
      isComplete: false,
    });
    const barrier = new Barrier();
    upstream.when({ method: "HEAD" }, { hold: { at: "headers", barrier } });
    const waiting = mirror.start(TAG);
    await upstream.arrived(1);
    barrier.release();
    assert.equal(
      cacheStatusOf(await waiting.response),
      "fwd=stale; fwd-status=200; detail=revalidated",
    );
  });
});
