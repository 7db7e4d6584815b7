import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const IMAGE = buildImage({ seed: "flight", layers: [200_000] });
const NEXT = buildImage({ seed: "flight, next" });
const LAST = buildImage({ seed: "flight, last" });
const CLIENTS = 50;
const TAG = "/v2/a/manifests/v";
const DIGEST = `/v2/a/manifests/${IMAGE.manifest.digest}`;
const BLOB = `/v2/a/blobs/${IMAGE.layers[0]?.digest}`;
const TTL_MS = 600_000;

async function setUp(
  test: AfterTest,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  return { upstream, mirror };
}

/** Sends all requests before the upstream answers the first one. */
async function askTogether(
  { upstream, mirror }: { upstream: ScriptedUpstream; mirror: TestMirror },
  paths: readonly string[],
  fault: Misbehaviour = {},
): Promise<readonly RawResponse[]> {
  const barrier = new Barrier();
  upstream.when({}, { ...fault, hold: { at: "headers", barrier } });
  const asking = paths.map((path) => mirror.get(path));
  await mirror.asked(paths.length);
  barrier.release();
  const answers = await Promise.all(asking);
  upstream.clearRules();
  return answers;
}

function times<T>(count: number, value: T): T[] {
  return Array.from({ length: count }, () => value);
}

void describe("concurrent requests", () => {
  for (const [name, path, requests] of [
    ["a cold tag", TAG, ["GET"]],
    ["a cold digest", DIGEST, ["GET"]],
    ["a cold blob", BLOB, ["GET"]],
  ] as const) {
    void it(`for ${name} cost as many upstream requests as one`, async (test) => {
      const both = await setUp(test);
      const answers = await askTogether(both, times(CLIENTS, path));
      for (const answer of answers) {
        assert.deepEqual([answer.status, answer.end], [200, "complete"]);
        assert.equal(answer.sha256, answers[0]?.sha256);
        assert.match(
          cacheStatusOf(answer) ?? "",
          /^fwd=miss; (collapsed|fwd-status=200; stored)$/,
        );
      }
      const asked = both.upstream.requests().map(({ method }) => method);
      assert.deepEqual(asked, requests);
    });
  }

  void it("for a tag that moved and its digest are one GET of it", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.content.addImage("a", NEXT, "v");
    assert.equal((await mirror.get(TAG)).sha256, NEXT.manifest.digest);
    upstream.content.addImage("a", IMAGE, "v");
    mirror.clock.advance(TTL_MS);
    upstream.forgetRequests();
    const barrier = new Barrier();
    upstream.when({ method: "GET" }, { hold: { at: "headers", barrier } });
    const byTag = mirror.get(TAG);
    await upstream.arrived(1, { method: "GET" });
    const byDigest = times(5, DIGEST).map((path) => mirror.get(path));
    await mirror.asked(6);
    barrier.release();
    for (const answer of await Promise.all([byTag, ...byDigest])) {
      assert.equal(answer.sha256, IMAGE.manifest.digest);
    }
    assert.equal(upstream.count({ method: "GET" }), 1);
  });

  void it("for an expired tag cost one HEAD", async (test) => {
    const both = await setUp(test);
    await both.mirror.get(TAG);
    both.upstream.forgetRequests();
    both.mirror.clock.advance(TTL_MS);
    for (const answer of await askTogether(both, times(CLIENTS, TAG))) {
      assert.equal(answer.sha256, IMAGE.manifest.digest);
      assert.equal(
        cacheStatusOf(answer),
        "fwd=stale; fwd-status=200; detail=revalidated",
      );
    }
    assert.equal(both.upstream.count(), 1);
  });

  const faults: readonly (readonly [string, Misbehaviour, number, number])[] = [
    ["404", { status: 404 }, 404, 1],
    // One retry for all requests together.
    ["500", { status: 500 }, 502, 2],
    ["429", { status: 429 }, 429, 1],
    ["403", { status: 403 }, 404, 1],
    ["nothing", { raw: "" }, 502, 2],
  ];
  for (const [name, fault, status, requests] of faults) {
    for (const [what, path] of [
      ["tag", TAG],
      ["digest", DIGEST],
      ["blob", BLOB],
    ] as const) {
      void it(`for a cold ${what} all receive the error if the upstream answers ${name}`, async (test) => {
        const both = await setUp(test);
        const answers = await askTogether(both, times(CLIENTS, path), fault);
        for (const answer of answers) {
          assert.equal(answer.status, status);
          assert.ok(errorCode(answer));
        }
        assert.equal(both.upstream.count(), requests);
        // No request still waits, and the next one is sent upstream again.
        both.mirror.clock.advance(300_000);
        assert.equal((await both.mirror.get(path)).status, 200);
      });
    }
  }

  void it("for a blob with wrong bytes all receive a short body", async (test) => {
    const both = await setUp(test);
    const answers = await askTogether(both, times(CLIENTS, BLOB), {
      flip: "last",
    });
    for (const answer of answers) {
      assert.deepEqual([answer.status, answer.end], [200, "fin"]);
      assert.equal(answer.bodyBytes, 200_000 - 65_536);
    }
    assert.equal(both.upstream.count(), 1);
  });

  void it("are complete even if some clients disconnect", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const barrier = new Barrier();
    upstream.when({}, { hold: { at: "headers", barrier } });
    const leaving = mirror.start(TAG, { timeoutMs: 50 });
    const staying = times(5, TAG).map((path) => mirror.get(path));
    await mirror.asked(6);
    assert.equal((await leaving.response).end, "timeout");
    barrier.release();
    for (const answer of await Promise.all(staying)) {
      assert.equal(answer.sha256, IMAGE.manifest.digest);
    }
    assert.equal(upstream.count(), 1);
  });
});

void describe("an older answer of the upstream", () => {
  void it("never replaces a newer one: a tag has one revalidation at a time", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get(TAG);
    upstream.forgetRequests();
    mirror.clock.advance(TTL_MS);
    upstream.content.addImage("a", NEXT, "v");
    const barrier = new Barrier();
    upstream.when({ method: "GET" }, { hold: { at: "headers", barrier } });
    const first = mirror.get(TAG);
    await upstream.arrived(1, { method: "GET" });
    // The tag moves again while the first answer is in transit.
    upstream.content.addImage("a", LAST, "v");
    const second = mirror.get(TAG);
    await mirror.asked(2);
    barrier.release();
    for (const answer of await Promise.all([first, second])) {
      assert.equal(answer.sha256, NEXT.manifest.digest);
    }
    assert.equal(upstream.count({ method: "HEAD" }), 1);
    mirror.clock.advance(TTL_MS);
    assert.equal((await mirror.get(TAG)).sha256, LAST.manifest.digest);
    assert.equal((await mirror.get(TAG)).sha256, LAST.manifest.digest);
  });
});
