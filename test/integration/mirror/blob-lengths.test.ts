import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Barrier } from "../../support/barrier.ts";
import {
  buildImage,
  bytesBlob,
  descriptorJson,
  manifestOf,
  seededBlob,
  type TestBlob,
} from "../../support/image-builder.ts";
import {
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "lengths", layers: [300_000] });
const [NAMED] = IMAGE.layers;
const UNNAMED = seededBlob("named by no manifest", 200_000);
const EMPTY = bytesBlob("");
const VERSIONS = ["1.0", "1.1"] as const;

async function setUp(
  test: AfterTest,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  for (const blob of [UNNAMED, EMPTY]) upstream.content.addBlob("a", blob);
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  await mirror.get("/v2/a/manifests/v");
  return { upstream, mirror };
}

function pathOf(blob: TestBlob): string {
  return `/v2/a/blobs/${blob.digest}`;
}

function ask(
  mirror: TestMirror,
  blob: TestBlob,
  version: (typeof VERSIONS)[number],
): Promise<RawResponse> {
  return mirror.raw(
    `GET ${pathOf(blob)} HTTP/${version}\r\nHost: m\r\nConnection: close\r\n\r\n`,
  );
}

assert.ok(NAMED);
for (const [name, blob] of [
  ["with a descriptor", NAMED],
  ["that nothing names", UNNAMED],
] as const) {
  void describe(`a blob ${name}`, () => {
    for (const version of VERSIONS) {
      void it(`is not answered with length 0 if the upstream does so (HTTP/${version})`, async (test) => {
        const { upstream, mirror } = await setUp(test);
        upstream.when({ kind: "blob" }, { body: "" });
        for (let i = 0; i < 2; i++) {
          const got = await ask(mirror, blob, version);
          assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
          await mirror.settled();
        }
        upstream.clearRules();
        const whole = await ask(mirror, blob, version);
        assert.equal(whole.sha256, blob.digest);
      });

      void it(`with an empty body of unknown length is never complete (HTTP/${version})`, async (test) => {
        const { upstream, mirror } = await setUp(test);
        upstream.when({ kind: "blob" }, { body: "", framing: "chunked" });
        const got = await ask(mirror, blob, version);
        if (got.status === 200) {
          assert.equal(got.end, "fin");
          assert.notEqual(got.headers["content-length"], "0");
        } else {
          assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
        }
      });
    }

    void it("is not answered with length 0 to HEAD", async (test) => {
      const { upstream, mirror } = await setUp(test);
      upstream.when({ kind: "blob", method: "HEAD" }, { contentLength: 0 });
      const honest = await mirror.head(pathOf(blob));
      assert.deepEqual(
        [honest.status, honest.headers["content-length"]],
        [200, String(blob.sizeBytes)],
      );
      upstream.when({ kind: "blob", method: "GET" }, { body: "" });
      const lied = await mirror.head(pathOf(blob));
      assert.notEqual(lied.headers["content-length"], "0");
      assert.equal(lied.status, blob === NAMED ? 200 : 502);
    });
  });
}

void describe("a length that contradicts the descriptor", () => {
  for (const version of VERSIONS) {
    void it(`delays the response head, and is answered 502 if the bytes are wrong (HTTP/${version})`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      const barrier = new Barrier();
      upstream.when(
        { kind: "blob" },
        { shortenTo: 70_000, hold: { at: 69_999, barrier } },
        { times: 1 },
      );
      const asking = ask(mirror, NAMED, version);
      await upstream.sent(69_999, { kind: "blob" });
      const joined = mirror.start(pathOf(NAMED));
      await mirror.asked(2);
      const head = await mirror.head(pathOf(NAMED));
      assert.equal(head.headers["content-length"], String(NAMED.sizeBytes));
      assert.equal(joined.bodyBytes, 0);
      barrier.release();
      for (const got of [await asking, await joined.response]) {
        assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
      }
      await mirror.settled();
      assert.equal(await mirror.metric("entrepot_digest_mismatches_total"), 1);
      const whole = await ask(mirror, NAMED, version);
      assert.equal(whole.sha256, NAMED.digest);
    });

    void it(`is replaced by the verified length if the digest is right (HTTP/${version})`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      const { mediaType } = IMAGE.manifest;
      const wrong = manifestOf(
        {
          schemaVersion: 2,
          mediaType,
          config: descriptorJson(IMAGE.config),
          layers: [{ ...descriptorJson(UNNAMED), size: 300_000 }],
        },
        mediaType,
      );
      upstream.content.addManifest("a", wrong, "wrong");
      await mirror.get("/v2/a/manifests/wrong");
      const got = await ask(mirror, UNNAMED, version);
      assert.equal(got.headers["content-length"], String(UNNAMED.sizeBytes));
      assert.deepEqual(
        [got.status, got.end, got.sha256],
        [200, "complete", UNNAMED.digest],
      );
    });
  }

  void it("delays only the clients of the repository with the wrong manifest", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const { mediaType } = IMAGE.manifest;
    const wrong = manifestOf(
      {
        schemaVersion: 2,
        mediaType,
        config: descriptorJson(IMAGE.config),
        layers: [{ ...descriptorJson(NAMED), size: 5 }],
      },
      mediaType,
    );
    upstream.content.addImage("b", IMAGE);
    upstream.content.addManifest("b", wrong, "wrong");
    await mirror.get("/v2/b/manifests/wrong");
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: 150_000, barrier } });
    const held = mirror.start(`/v2/b/blobs/${NAMED.digest}`);
    await upstream.sent(150_000, { kind: "blob" });
    const free = mirror.start(pathOf(NAMED));
    await free.received(80_000);
    assert.equal(held.bodyBytes, 0);
    barrier.release();
    for (const got of [await held.response, await free.response]) {
      assert.deepEqual([got.status, got.sha256], [200, NAMED.digest]);
    }
    assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
  });

  for (const [what, size] of [
    ["too small", 100_000],
    ["too large", 300_000],
  ] as const) {
    void it(`that is ${what} completes no body of a running download of unknown length`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      const { mediaType } = IMAGE.manifest;
      const wrong = manifestOf(
        {
          schemaVersion: 2,
          mediaType,
          config: descriptorJson(IMAGE.config),
          layers: [{ ...descriptorJson(UNNAMED), size }],
        },
        mediaType,
      );
      const barrier = new Barrier();
      upstream.when(
        { kind: "blob" },
        { framing: "chunked", hold: { at: 190_000, barrier } },
      );
      const first = mirror.start(pathOf(UNNAMED));
      await first.received(100_000);
      // The descriptor arrives during the download.
      upstream.content.addManifest("a", wrong, "wrong");
      await mirror.get("/v2/a/manifests/wrong");
      const joined = mirror.start(pathOf(UNNAMED));
      await joined.received(30_000);
      barrier.release();
      const got = await joined.response;
      assert.ok(
        got.sha256 === UNNAMED.digest || got.end !== "complete",
        `a body of ${joined.bodyBytes} bytes that ended ${got.end}`,
      );
      assert.equal((await first.response).sha256, UNNAMED.digest);
    });
  }

  void it("causes no range request before the digest is verified", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.when({ kind: "blob" }, { shortenTo: 70_000 }, { times: 1 });
    const got = await mirror.get(pathOf(NAMED), { Range: "bytes=0-9" });
    assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
  });
});

void describe("the empty blob", () => {
  void it("has length 0 even if the upstream states no length", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.when({ kind: "blob" }, { framing: "chunked" });
    const got = await mirror.get(pathOf(EMPTY));
    assert.deepEqual(
      [got.status, got.headers["content-length"], got.end],
      [200, "0", "complete"],
    );
  });

  void it("is not answered with the upstream's bytes", async (test) => {
    const { upstream, mirror } = await setUp(test);
    upstream.when({ kind: "blob" }, { body: "some" });
    const got = await mirror.get(pathOf(EMPTY));
    assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
  });
});
