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
import { readParts } from "../../support/multipart.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const MIB = 1024 * 1024;
const BLOB = seededBlob("parts", 3 * MIB);
const SIZE = BLOB.sizeBytes;
const PATH = `/v2/a/blobs/${BLOB.digest}`;

type Pair = readonly [first: number, last: number];

async function setUp(
  test: AfterTest,
  isStored: boolean,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addBlob("a", BLOB);
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  if (isStored) {
    await mirror.get(PATH);
    await mirror.settled();
    upstream.forgetRequests();
  }
  return { upstream, mirror };
}

function rangeOf(pairs: readonly Pair[]): { Range: string } {
  return {
    Range: `bytes=${pairs.map(([first, last]) => `${first}-${last}`).join(",")}`,
  };
}

function assertAreParts(
  response: RawResponse,
  blob: TestBlob,
  pairs: readonly Pair[],
): void {
  assert.deepEqual([response.status, response.end], [206, "complete"]);
  const { headers } = response;
  assert.equal(headers["content-length"], String(response.bodyBytes));
  assert.equal(headers["content-range"], undefined);
  assert.equal(headers["docker-content-digest"], blob.digest);
  assert.equal(headers["etag"], `"${blob.digest}"`);
  const parts = readParts(response);
  assert.deepEqual(
    parts.map(({ contentRange }) => contentRange),
    pairs.map(([first, last]) => `bytes ${first}-${last}/${blob.sizeBytes}`),
  );
  for (const [i, [first, last]] of pairs.entries()) {
    assert.equal(parts[i]?.contentType, "application/octet-stream");
    assert.ok(parts[i]?.bytes.equals(blob.read(first, last - first + 1)));
  }
}

const TEN: readonly Pair[] = Array.from({ length: 10 }, (_, i) => [
  i * 300_000,
  i * 300_000 + 123 + i * 29_000,
]);
const MOST: readonly Pair[] = Array.from({ length: 1_024 }, (_, i) => [
  i * 3_000,
  i * 3_000 + 1_999,
]);

for (const isStored of [true, false]) {
  const kind = isStored ? "stored" : "cold";
  void describe(`several ranges of a ${kind} blob`, () => {
    for (const [name, pairs] of [
      [
        "two",
        [
          [0, 9],
          [20, 29],
        ],
      ],
      [
        "two that touch",
        [
          [0, 9],
          [10, 29],
        ],
      ],
      ["ten", TEN],
      ["1 024", MOST],
      [
        "the first and the last byte",
        [
          [0, 0],
          [SIZE - 1, SIZE - 1],
        ],
      ],
    ] as const) {
      void it(`are answered in parts: ${name}`, async (test) => {
        const { upstream, mirror } = await setUp(test, isStored);
        const got = await mirror.get(PATH, rangeOf(pairs));
        assertAreParts(got, BLOB, pairs);
        assert.equal(
          cacheStatusOf(got),
          isStored ? "hit" : "fwd=miss; fwd-status=200; stored",
        );
        await mirror.settled();
        assert.equal(upstream.count({ hasRange: true }), 0);
        assert.equal(upstream.count(), isStored ? 0 : 1);
        assert.equal((await mirror.get(PATH)).sha256, BLOB.digest);
      });
    }

    void it("that merge into one range, or are unsatisfiable, are answered as one range or 416", async (test) => {
      const { mirror } = await setUp(test, isStored);
      const ask = (range: string) => mirror.get(PATH, { Range: range });
      const spoilt = await ask("bytes=5-9,7-6");
      assert.deepEqual([spoilt.status, spoilt.sha256], [200, BLOB.digest]);
      const merged = await ask(`bytes=5-9,7-19,${SIZE}-,-0`);
      assert.equal(merged.status, 206);
      assert.equal(merged.headers["content-range"], `bytes 5-19/${SIZE}`);
      assert.deepEqual(merged.body, BLOB.read(5, 15));
      const none = await ask(`bytes=${SIZE}-,-0`);
      assert.deepEqual([none.status, errorCode(none)], [416, "RANGE_INVALID"]);
      assert.equal(none.headers["content-range"], `bytes */${SIZE}`);
    });

    void it("are answered with the whole blob if If-Range has another entity tag", async (test) => {
      const { mirror } = await setUp(test, isStored);
      const got = await mirror.get(PATH, {
        ...rangeOf(TEN),
        "If-Range": '"other"',
      });
      assert.deepEqual([got.status, got.sha256], [200, BLOB.digest]);
    });
  });
}

void describe("parts", () => {
  void it("of a stored blob are sent in the order of the request", async (test) => {
    const { mirror } = await setUp(test, true);
    const pairs = TEN.toReversed();
    assertAreParts(await mirror.get(PATH, rangeOf(pairs)), BLOB, pairs);
  });

  void it("of a cold blob that do not ascend are answered with the whole blob", async (test) => {
    const { mirror } = await setUp(test, false);
    const got = await mirror.get(PATH, rangeOf(TEN.toReversed()));
    assert.deepEqual([got.status, got.sha256], [200, BLOB.digest]);
  });

  void it("of a cold blob are sent as they arrive, and its tail once the digest is verified", async (test) => {
    const { upstream, mirror } = await setUp(test, false);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: SIZE - 1, barrier } });
    const pairs: readonly Pair[] = [
      [0, 99_999],
      [200_000, 299_999],
      [SIZE - 100, SIZE - 1],
    ];
    const asking = mirror.start(PATH, { headers: rangeOf(pairs) });
    await asking.received(200_000);
    await upstream.sent(SIZE - 1, { kind: "blob" });
    barrier.release();
    assertAreParts(await asking.response, BLOB, pairs);
  });

  void it("of a cold blob are cut if its bytes are wrong, and refused for a while", async (test) => {
    const { upstream, mirror } = await setUp(test, false);
    upstream.when({ kind: "blob" }, { flip: "middle" });
    const pairs: readonly Pair[] = [
      [0, 99],
      [SIZE - 100, SIZE - 1],
    ];
    const cut = await mirror.get(PATH, rangeOf(pairs));
    assert.deepEqual([cut.status, cut.end], [206, "fin"]);
    await mirror.settled();
    const refused = await mirror.get(PATH, rangeOf(pairs));
    assert.deepEqual(
      [refused.status, errorCode(refused)],
      [502, "UNAVAILABLE"],
    );
  });

  void it("of a blob that can't be stored pass through", async (test) => {
    const { mirror } = await setUp(test, false);
    await mirror.loseStorage();
    const got = await mirror.get(PATH, rangeOf(TEN));
    assertAreParts(got, BLOB, TEN);
    assert.equal(cacheStatusOf(got), "fwd=miss; fwd-status=200");
  });
});
