import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import { seededBlob, type TestBlob } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawExchange, RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const MIB = 1024 * 1024;
const SMALL = seededBlob("small", 300_000);
const LARGE = seededBlob("large", 24 * MIB);
const END = SMALL.sizeBytes - 1;

async function setUp(
  test: AfterTest,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  for (const blob of [SMALL, LARGE]) upstream.content.addBlob("a", blob);
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  return { upstream, mirror };
}

function pathOf(blob: TestBlob): string {
  return `/v2/a/blobs/${blob.digest}`;
}

function assertIsPart(
  response: RawResponse,
  blob: TestBlob,
  [first, last]: readonly [number, number],
): void {
  assert.deepEqual([response.status, response.end], [206, "complete"]);
  assert.equal(
    response.headers["content-range"],
    `bytes ${first}-${last}/${blob.sizeBytes}`,
  );
  assert.equal(response.headers["content-length"], String(last - first + 1));
  assert.equal(response.headers["docker-content-digest"], blob.digest);
  assert.deepEqual(response.body, blob.read(first, last - first + 1));
}

const SATISFIABLE: readonly (readonly [string, readonly [number, number]])[] = [
  ["bytes=0-0", [0, 0]],
  ["bytes=0-", [0, END]],
  ["bytes=100-299", [100, 299]],
  ["bytes=299999-", [END, END]],
  ["bytes=-1", [END, END]],
  ["bytes=-1000", [END - 999, END]],
  ["bytes=-9999999", [0, END]],
  ["bytes=5-99999999999999999999", [5, END]],
  ["Bytes=7-8", [7, 8]],
];

const UNSATISFIABLE = ["bytes=300000-", "bytes=-0", "bytes=400000-500000"];

/** Invalid ranges, which are answered with the whole blob. */
const IGNORED = [
  `bytes=${Array.from({ length: 1025 }, (_, i) => `${i * 10}-${i * 10 + 3}`).join(",")}`,
  "bytes=0-1,5-6,9-8",
  "bytes=9-3",
  "bytes=a-b",
  "bytes=-",
  "bytes=1-2-3",
  "items=0-5",
  "bytes 0-5",
  "",
];

void describe("a range of a stored blob", () => {
  void it("is exact if it is valid and satisfiable, 416 if not satisfiable, else the whole", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get(pathOf(SMALL));
    await mirror.settled();
    upstream.forgetRequests();
    for (const [range, wanted] of SATISFIABLE) {
      const got = await mirror.get(pathOf(SMALL), { Range: range });
      assertIsPart(got, SMALL, wanted);
      assert.equal(cacheStatusOf(got), "hit");
    }
    for (const range of UNSATISFIABLE) {
      const got = await mirror.get(pathOf(SMALL), { Range: range });
      assert.deepEqual([got.status, errorCode(got)], [416, "RANGE_INVALID"]);
      assert.equal(got.headers["content-range"], "bytes */300000");
      assert.equal(cacheStatusOf(got), "hit");
    }
    for (const range of IGNORED) {
      const got = await mirror.get(pathOf(SMALL), { Range: range });
      assert.equal(got.status, 200, range);
      assert.equal(got.headers["content-range"], undefined);
      assert.equal(got.sha256, SMALL.digest);
    }
    assert.equal(upstream.count(), 0);
  });

  void it("is applied only if If-Range is the blob's own entity tag", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.get(pathOf(SMALL));
    await mirror.settled();
    const etag = `"${SMALL.digest}"`;
    for (const [ifRange, status] of [
      [etag, 206],
      [`W/${etag}`, 200],
      ['"other"', 200],
      [SMALL.digest, 200],
      ["Thu, 01 Jan 2026 00:00:00 GMT", 200],
    ] as const) {
      const got = await mirror.get(pathOf(SMALL), {
        Range: "bytes=1-2",
        "If-Range": ifRange,
      });
      assert.equal(got.status, status, ifRange);
    }
  });

  void it("is ignored for HEAD", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.get(pathOf(SMALL));
    await mirror.settled();
    const head = await mirror.head(pathOf(SMALL), { Range: "bytes=1-2" });
    assert.equal(head.status, 200);
    assert.equal(head.headers["content-length"], "300000");
  });
});

void describe("a range of a cold blob", () => {
  for (const [range, wanted] of SATISFIABLE) {
    void it(`${range} starts one download of the whole blob`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      const got = await mirror.get(pathOf(SMALL), { Range: range });
      assertIsPart(got, SMALL, wanted);
      assert.equal(cacheStatusOf(got), "fwd=miss; fwd-status=200; stored");
      await mirror.settled();
      const whole = await mirror.get(pathOf(SMALL));
      assert.equal(cacheStatusOf(whole), "hit");
      assert.equal(whole.sha256, SMALL.digest);
      assert.equal(upstream.count(), 1);
      assert.equal(upstream.count({ hasRange: true }), 0);
    });
  }

  void it("is 416 with the size if not satisfiable, and the whole blob if invalid", async (test) => {
    for (const range of UNSATISFIABLE) {
      const { mirror } = await setUp(test);
      const got = await mirror.get(pathOf(SMALL), { Range: range });
      assert.deepEqual([got.status, errorCode(got)], [416, "RANGE_INVALID"]);
      assert.equal(got.headers["content-range"], "bytes */300000");
    }
    for (const range of IGNORED.slice(0, 3)) {
      const { mirror } = await setUp(test);
      const got = await mirror.get(pathOf(SMALL), { Range: range });
      assert.deepEqual([got.status, got.sha256], [200, SMALL.digest]);
    }
  });

  void it("is answered 200 with the whole blob if the size is unknown", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.when({ kind: "blob" }, { framing: "chunked" });
    const got = await mirror.get(pathOf(SMALL), { Range: "bytes=5-9" });
    assert.deepEqual([got.status, got.sha256], [200, SMALL.digest]);
  });

  void it("is fetched as one upstream body for concurrent requests of ranges and the whole blob", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: "headers", barrier } });
    const parts = SATISFIABLE.map(([range]) =>
      mirror.get(pathOf(SMALL), { Range: range }),
    );
    const wholes = Array.from({ length: 5 }, () => mirror.get(pathOf(SMALL)));
    await mirror.asked(parts.length + wholes.length);
    barrier.release();
    for (const [i, part] of (await Promise.all(parts)).entries()) {
      const [, wanted] = SATISFIABLE[i] ?? ["", [0, 0]];
      assertIsPart(part, SMALL, wanted);
    }
    for (const whole of await Promise.all(wholes)) {
      assert.equal(whole.sha256, SMALL.digest);
    }
    assert.equal(upstream.count(), 1);
    assert.equal(upstream.bytesSent(), SMALL.sizeBytes);
  });
});

/** Starts a download that the upstream stops at a byte. */
async function heldFill(
  test: AfterTest,
  blob: TestBlob,
  at: number,
): Promise<{
  upstream: ScriptedUpstream;
  mirror: TestMirror;
  barrier: Barrier;
  filling: RawExchange;
}> {
  const { upstream, mirror } = await setUp(test);
  const barrier = new Barrier();
  upstream.when({ kind: "blob", hasRange: false }, { hold: { at, barrier } });
  const filling = mirror.start(pathOf(blob), { body: "hash" });
  await filling.received(Math.max(1, at - 200_000));
  return { upstream, mirror, barrier, filling };
}

void describe("a range while the blob is downloaded", () => {
  void it("is served as soon as the download reaches it", async (test) => {
    const { upstream, mirror, barrier, filling } = await heldFill(
      test,
      LARGE,
      2 * MIB,
    );
    const got = await mirror.get(pathOf(LARGE), { Range: "bytes=1000-1999" });
    assertIsPart(got, LARGE, [1_000, 1_999]);
    assert.equal(cacheStatusOf(got), "fwd=miss; collapsed");
    const ahead = mirror.start(pathOf(LARGE), {
      headers: { Range: "bytes=3000000-3000999" },
    });
    await ahead.answered();
    assert.equal(ahead.bodyBytes, 0);
    barrier.release();
    assertIsPart(await ahead.response, LARGE, [3_000_000, 3_000_999]);
    assert.equal((await filling.response).sha256, LARGE.digest);
    assert.equal(upstream.count(), 1);
  });

  void it("is served from the upstream if it is far ahead of the download, two at a time", async (test) => {
    const { upstream, mirror, barrier, filling } = await heldFill(
      test,
      LARGE,
      MIB,
    );
    const sides = new Barrier();
    upstream.when({ hasRange: true }, { hold: { at: 10, barrier: sides } });
    const ranges = [12, 14, 16].map(
      (mib) => [mib * MIB, mib * MIB + 99] as const,
    );
    const asking: RawExchange[] = [];
    for (const [i, [first, last]] of ranges.entries()) {
      const headers = { Range: `bytes=${first}-${last}` };
      const ask = mirror.start(pathOf(LARGE), { headers });
      await ask.answered();
      if (i < 2) await ask.received(10);
      asking.push(ask);
    }
    assert.equal(upstream.count({ hasRange: true }), 2);
    sides.release();
    for (const i of [0, 1]) {
      const got = await asking[i]?.response;
      assert.ok(got !== undefined);
      assertIsPart(got, LARGE, ranges[i] ?? [0, 0]);
      assert.equal(cacheStatusOf(got), "fwd=partial; fwd-status=206");
    }
    const again = await mirror.get(pathOf(LARGE), {
      Range: `bytes=${20 * MIB}-${20 * MIB}`,
    });
    assert.equal(cacheStatusOf(again), "fwd=partial; fwd-status=206");
    assert.equal(asking[2]?.bodyBytes, 0);
    barrier.release();
    const third = await asking[2]?.response;
    assert.ok(third !== undefined);
    assertIsPart(third, LARGE, ranges[2] ?? [0, 0]);
    assert.equal(cacheStatusOf(third), "fwd=miss; collapsed");
    assert.equal((await filling.response).sha256, LARGE.digest);
    assert.equal(upstream.count({ hasRange: true }), 3);
    assert.equal(upstream.count({ hasRange: false }), 1);
  });

  void it("that is served from the upstream is resumed if the upstream cuts it", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const barrier = new Barrier();
    upstream.when(
      { hasRange: false },
      { hold: { at: 4 * MIB, barrier } },
      { times: 1 },
    );
    const fill = mirror.start(pathOf(LARGE));
    await fill.received(MIB);
    const cuts = [
      { cut: { atByte: MIB, by: "fin" } },
      { cut: { atByte: 70_000, by: "rst" } },
      { status: 500 },
    ] as const;
    const [first, last] = [16 * MIB, 19 * MIB - 1] as const;
    for (const cut of cuts) {
      upstream.when({ hasRange: true }, cut, { times: 1 });
    }
    const range = { Range: `bytes=${first}-${last}` };
    const part = await mirror.get(pathOf(LARGE), range);
    assertIsPart(part, LARGE, [first, last]);
    assert.ok(upstream.count({ hasRange: true }) >= 3);
    barrier.release();
    assert.equal((await fill.response).sha256, LARGE.digest);
  });

  void it("that is served from the upstream ends early if the upstream no longer has it", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const barrier = new Barrier();
    upstream.when(
      { hasRange: false },
      { hold: { at: 4 * MIB, barrier } },
      { times: 1 },
    );
    const fill = mirror.start(pathOf(LARGE));
    await fill.received(MIB);
    upstream.when(
      { hasRange: true },
      { cut: { atByte: MIB, by: "fin" } },
      { times: 1 },
    );
    upstream.when({ hasRange: true }, { status: 404 });
    const range = { Range: `bytes=${16 * MIB}-${19 * MIB - 1}` };
    const part = await mirror.get(pathOf(LARGE), range);
    assert.deepEqual([part.status, part.end], [206, "fin"]);
    assert.equal(part.bodyBytes, MIB);
    barrier.release();
    assert.equal((await fill.response).sha256, LARGE.digest);
  });

  void it("that is far ahead waits for the download if the upstream does not support ranges", async (test) => {
    const { upstream, mirror, barrier, filling } = await heldFill(
      test,
      LARGE,
      MIB,
    );
    upstream.when(
      { hasRange: true },
      { status: 200, headers: { "content-range": undefined }, body: LARGE },
    );
    const ahead = mirror.start(pathOf(LARGE), {
      headers: { Range: `bytes=${16 * MIB}-${16 * MIB + 9}` },
    });
    await ahead.answered();
    assert.equal(ahead.bodyBytes, 0);
    barrier.release();
    assertIsPart(await ahead.response, LARGE, [16 * MIB, 16 * MIB + 9]);
    assert.equal((await filling.response).sha256, LARGE.digest);
  });

  void it("at the end has its tail withheld until the digest is verified", async (test) => {
    const { mirror, barrier, filling } = await heldFill(test, SMALL, 299_999);
    const tail = mirror.start(pathOf(SMALL), {
      headers: { Range: "bytes=-100000" },
    });
    await tail.received(100_000 - 65_536);
    assert.equal(tail.bodyBytes, 100_000 - 65_536);
    const last = mirror.start(pathOf(SMALL), {
      headers: { Range: "bytes=-10" },
    });
    await last.answered();
    assert.equal(last.bodyBytes, 0);
    barrier.release();
    assertIsPart(await tail.response, SMALL, [200_000, END]);
    assertIsPart(await last.response, SMALL, [END - 9, END]);
    assert.equal((await filling.response).sha256, SMALL.digest);
  });

  void it("at the end is never complete if the digest is wrong, and other ranges are refused for 10 s", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.when({ kind: "blob" }, { flip: "first" }, { times: 1 });
    const tail = await mirror.get(pathOf(SMALL), { Range: "bytes=-100000" });
    assert.deepEqual([tail.status, tail.end], [206, "fin"]);
    assert.ok(tail.bodyBytes <= 100_000 - 65_536);
    await mirror.settled();
    const refused = await mirror.get(pathOf(SMALL), { Range: "bytes=5-9" });
    assert.deepEqual(
      [refused.status, errorCode(refused)],
      [502, "UNAVAILABLE"],
    );
    assert.equal(upstream.count(), 1);
    mirror.clock.advance(10_000);
    const part = await mirror.get(pathOf(SMALL), { Range: "bytes=5-9" });
    assertIsPart(part, SMALL, [5, 9]);
  });

  void it("is aborted by its client repeatedly without an effect on the download", async (test) => {
    const { upstream, mirror, barrier, filling } = await heldFill(
      test,
      LARGE,
      4 * MIB,
    );
    // As containerd fetches a layer in parts: open-ended ranges, each aborted after its chunk.
    for (let i = 0; i < 20; i++) {
      const got = await mirror.start(pathOf(LARGE), {
        headers: { Range: `bytes=${i * 100_000}-` },
        leave: { atByte: 50_000, by: i % 2 === 0 ? "fin" : "rst" },
      }).response;
      assert.deepEqual([got.status, got.end], [206, "left"]);
    }
    barrier.release();
    assert.equal((await filling.response).sha256, LARGE.digest);
    assert.equal(upstream.count(), 1);
  });
});
