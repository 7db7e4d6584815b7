import assert from "node:assert/strict";
import { once } from "node:events";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import type { Digest } from "../../../src/oci/digest.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import { readParts } from "../../support/seeded-bytes.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";
import {
  ALPINE,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";
import { MAX_MANIFEST_BYTES } from "../../../src/oci/manifest.ts";

const BLOB = seededBlob("bodies", 300_000);
const BYTES = Buffer.concat([...readParts(BLOB)]);
const IMAGE = buildImage({ seed: "bodies", layers: [BLOB] });

async function startRegistry(t: AfterTest): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(t);
  upstream.content.addImage(ALPINE, IMAGE, "1");
  return upstream;
}

void describe("a blob's body", () => {
  const CUT: readonly (readonly [string, Misbehaviour])[] = [
    ["with a length, by FIN", { cut: { atByte: 150_000, by: "fin" } }],
    ["with a length, by RST", { cut: { atByte: 150_000, by: "rst" } }],
    ["one byte short", { cut: { atByte: 299_999, by: "fin" } }],
    ["before its first byte", { cut: { atByte: 0, by: "fin" } }],
    [
      "in chunks, by FIN",
      { framing: "chunked", cut: { atByte: 150_000, by: "fin" } },
    ],
    [
      "in chunks, by RST",
      { framing: "chunked", cut: { atByte: 150_000, by: "rst" } },
    ],
    [
      "in chunks, before the last",
      { framing: "chunked", cut: { atByte: 300_000, by: "fin" } },
    ],
  ];
  for (const [name, fault] of CUT) {
    void it(`that breaks ${name} ends with an error and releases its slot`, async (t) => {
      const upstream = await startRegistry(t);
      upstream.when({ kind: "blob" }, fault, { times: 1 });
      const { client } = startUpstreamClient(t, [upstream.origin], {
        concurrency: 1,
      });
      const open = () =>
        client.openBlob(ALPINE, BLOB.digest, { signal: SIGNAL });
      const { body } = await open();
      const error = await upstreamErrorOf(buffer(body));
      assert.equal(error.kind, "interrupted");
      assert.equal(digestOf(await buffer((await open()).body)), BLOB.digest);
      assert.equal(client.isDown(), false);
    });
  }

  for (const by of ["fin", "rst"] as const) {
    void it(`without a length that is cut by ${by} ends as if complete: only the digest detects it`, async (t) => {
      const upstream = await startRegistry(t);
      upstream.when(
        { kind: "blob" },
        { framing: "eof", cut: { atByte: 150_000, by } },
      );
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const { body, sizeBytes } = await client.openBlob(ALPINE, BLOB.digest, {
        signal: SIGNAL,
      });
      assert.equal(sizeBytes, undefined);
      const bytes = await buffer(body).catch(() => Buffer.alloc(0));
      assert.notEqual(digestOf(bytes), BLOB.digest);
    });
  }

  void it("that stalls ends with a time-out, without a failure of the endpoint", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when({ kind: "blob" }, { stallAt: 150_000 }, { times: 1 });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      idleTimeoutMs: 300,
    });
    const { body } = await client.openBlob(ALPINE, BLOB.digest, {
      signal: SIGNAL,
    });
    assert.equal((await upstreamErrorOf(buffer(body))).kind, "timeout");
    assert.equal(client.isDown(), false);
    const rest = await client.openBlob(ALPINE, BLOB.digest, {
      offset: 150_000,
      signal: SIGNAL,
    });
    assert.deepEqual(await buffer(rest.body), BYTES.subarray(150_000));
  });

  void it("that is slow is not ended while bytes arrive", async (t) => {
    const upstream = await startRegistry(t);
    const slow = seededBlob("bodies/slow", 1_500);
    upstream.content.addBlob(ALPINE, slow);
    upstream.when({ kind: "blob" }, { bytesPerSecond: 1_000 });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      idleTimeoutMs: 600,
    });
    const { body } = await client.openBlob(ALPINE, slow.digest, {
      signal: SIGNAL,
    });
    assert.equal(digestOf(await buffer(body)), slow.digest);
    assert.equal(upstream.count(), 1);
    assert.equal(client.isDown(), false);
  });

  void it("ends when the caller's signal aborts", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when({ kind: "blob" }, { stallAt: 150_000 });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const leaving = new AbortController();
    const { body } = await client.openBlob(ALPINE, BLOB.digest, {
      signal: leaving.signal,
    });
    const broken = upstreamErrorOf(buffer(body));
    leaving.abort();
    assert.equal((await broken).kind, "interrupted");
    await upstream.ended({ kind: "blob" });
  });

  void it("that is destroyed ends at the upstream and releases its slot", async (t) => {
    const upstream = await startRegistry(t);
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob" },
      { hold: { at: 150_000, barrier } },
      { times: 1 },
    );
    const { client, observer } = startUpstreamClient(t, [upstream.origin], {
      concurrency: 1,
    });
    const open = () => client.openBlob(ALPINE, BLOB.digest, { signal: SIGNAL });
    const { body } = await open();
    const waiting = open();
    await once(body, "readable");
    body.destroy();
    await buffer((await waiting).body);
    await upstream.ended({ kind: "blob" });
    assert.ok(observer.receivedBytes < 600_000);
  });

  void it("is paused by a slow reader, not buffered in memory", async (t) => {
    const upstream = await startRegistry(t);
    const large = seededBlob("large", 33_554_432);
    upstream.content.addBlob(ALPINE, large);
    const { client, observer } = startUpstreamClient(t, [upstream.origin]);
    const { body } = await client.openBlob(ALPINE, large.digest, {
      signal: SIGNAL,
    });
    await once(body, "readable");
    // Enough time for far more bytes than the buffers hold.
    for (let round = 0; round < 50; round++) {
      await client.getManifest(ALPINE, TAG, SIGNAL);
    }
    assert.ok(observer.receivedBytes < 1_048_576, `${observer.receivedBytes}`);
    assert.equal(digestOf(await buffer(body)), large.digest);
  });

  void it("that is longer than its length is cut there", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when(
      { kind: "blob" },
      { appendBytes: 100, contentLength: 300_000 },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { body } = await client.openBlob(ALPINE, BLOB.digest, {
      signal: SIGNAL,
    });
    assert.equal(digestOf(await buffer(body)), BLOB.digest);
  });

  void it("is never decoded", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when({ kind: "blob" }, { gzip: true }, { times: 1 });
    upstream.when(
      { kind: "blob" },
      { headers: { "content-encoding": "gzip" } },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const read = async (): Promise<Buffer> => {
      const { body } = await client.openBlob(ALPINE, BLOB.digest, {
        signal: SIGNAL,
      });
      return buffer(body);
    };
    assert.deepEqual(gunzipSync(await read()), BYTES);
    assert.deepEqual(await read(), BYTES);
  });

  void it("may be empty", async (t) => {
    const upstream = await startRegistry(t);
    const empty = seededBlob("empty", 0);
    upstream.content.addBlob(ALPINE, empty);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const opened = await client.openBlob(ALPINE, empty.digest, {
      signal: SIGNAL,
    });
    assert.equal(opened.sizeBytes, 0);
    assert.equal((await buffer(opened.body)).length, 0);
    const head = await client.headBlob(ALPINE, empty.digest, SIGNAL);
    assert.equal(head.sizeBytes, 0);
    assert.equal(upstream.count(), 2);
  });
});

void describe("a range of a blob", () => {
  void it("may be answered with the whole blob", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when(
      { kind: "blob" },
      { status: 200, body: BYTES, headers: { "content-range": undefined } },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const opened = await client.openBlob(ALPINE, BLOB.digest, {
      offset: 1_000,
      signal: SIGNAL,
    });
    assert.equal(opened.status, 200);
    assert.equal(opened.offset, 0);
    assert.deepEqual(await buffer(opened.body), BYTES);
  });

  const WRONG: readonly (readonly [string, number, Misbehaviour])[] = [
    ["206 without Range", 0, { status: 206 }],
    [
      "206 with another start",
      1_000,
      { headers: { "content-range": "bytes 999-299998/300000" } },
    ],
    [
      "206 with another end",
      1_000,
      { headers: { "content-range": "bytes 1000-299998/300000" } },
    ],
    [
      "206 with a total that does not fit",
      1_000,
      { headers: { "content-range": "bytes 1000-299999/400000" } },
    ],
    ["206 without a range", 1_000, { headers: { "content-range": undefined } }],
    ["204", 0, { status: 204, body: "" }],
    ["416", 400_000, {}],
  ];
  for (const [name, offset, fault] of WRONG) {
    void it(`answered with ${name} is rejected, and the next endpoint is tried`, async (t) => {
      const first = await startRegistry(t);
      const second = await startRegistry(t);
      first.when({ kind: "blob" }, fault);
      const open = async (endpoints: readonly string[]) => {
        const { client } = startUpstreamClient(t, endpoints);
        return client.openBlob(ALPINE, BLOB.digest, { offset, signal: SIGNAL });
      };
      const error = await upstreamErrorOf(open([first.origin]));
      assert.equal(error.kind, "bad-response");
      if (offset < BLOB.sizeBytes) {
        const { body } = await open([first.origin, second.origin]);
        assert.deepEqual(await buffer(body), BYTES.subarray(offset));
      }
    });
  }
});

void describe("a manifest", () => {
  const REFUSED: readonly (readonly [string, Misbehaviour, string])[] = [
    ["empty", { body: "" }, "bad-response"],
    ["HTML", { headers: { "content-type": "text/html" } }, "bad-response"],
    [
      "gzip without a digest that reveals it",
      { gzip: true, headers: { "docker-content-digest": undefined } },
      "bad-response",
    ],
    [
      "one byte too large",
      { body: Buffer.alloc(MAX_MANIFEST_BYTES + 1, 0x20) },
      "too-large",
    ],
    [
      "too large, in chunks",
      { body: Buffer.alloc(MAX_MANIFEST_BYTES + 1, 0x20), framing: "chunked" },
      "too-large",
    ],
    ["cut", { cut: { atByte: 10, by: "fin" } }, "interrupted"],
    ["a 206", { status: 206 }, "bad-response"],
    ["a 304", { status: 304 }, "bad-response"],
  ];
  for (const [name, fault, kind] of REFUSED) {
    void it(`that is ${name} is ${kind}`, async (t) => {
      const upstream = await startRegistry(t);
      upstream.when({ kind: "manifest" }, fault);
      const { client } = startUpstreamClient(t, [upstream.origin]);
      const error = await upstreamErrorOf(
        client.getManifest(ALPINE, TAG, SIGNAL),
      );
      assert.equal(error.kind, kind);
    });
  }

  void it("that is too slow is a time-out, and the next endpoint is tried", async (t) => {
    const first = await startRegistry(t);
    const second = await startRegistry(t);
    first.when({ kind: "manifest" }, { bytesPerSecond: 100 });
    const { client } = startUpstreamClient(t, [first.origin, second.origin], {
      headersTimeoutMs: 300,
    });
    const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(bytes, IMAGE.manifest.bytes);
    assert.ok(first.bytesSent() < IMAGE.manifest.sizeBytes);
    await first.ended();
    await second.stop();
    const alone = startUpstreamClient(t, [first.origin], {
      headersTimeoutMs: 300,
    });
    const error = await upstreamErrorOf(
      alone.client.getManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "timeout");
  });

  void it("that is slow but fast enough is read to its end", async (t) => {
    const upstream = await startRegistry(t);
    const body = Buffer.alloc(12_000, 0x20);
    upstream.when({ kind: "manifest" }, { body, bytesPerSecond: 6_000 });
    const { client } = startUpstreamClient(t, [upstream.origin], {
      headersTimeoutMs: 900,
    });
    const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(bytes.length, body.length);
    assert.equal(client.isDown(), false);
  });

  void it("whose token is too slow is a time-out", async (t) => {
    const upstream = await ScriptedUpstream.start(t, {
      auth: { scheme: "bearer" },
    });
    upstream.content.addImage(ALPINE, IMAGE, "1");
    upstream.when(
      { kind: "token" },
      { bytesPerSecond: 20 },
      { beforeAuth: true },
    );
    const { client } = startUpstreamClient(t, [upstream.origin], {
      headersTimeoutMs: 300,
    });
    const error = await upstreamErrorOf(
      client.getManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(error.kind, "timeout");
  });

  void it("of the largest size is read", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when(
      { kind: "manifest" },
      { body: Buffer.alloc(MAX_MANIFEST_BYTES, 0x20), framing: "chunked" },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { bytes } = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(bytes.length, MAX_MANIFEST_BYTES);
  });

  void it("is described by a HEAD as far as its headers state", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when(
      { kind: "manifest" },
      {
        framing: "chunked",
        headers: {
          "docker-content-digest": "sha256:ABC",
          "content-type": "application/vnd.oci.image.index.v1+json; charset=x",
        },
      },
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    assert.deepEqual(await client.headManifest(ALPINE, TAG, SIGNAL), {
      digest: undefined,
      sizeBytes: undefined,
      mediaType: "application/vnd.oci.image.index.v1+json",
    });
    const manifest = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(manifest.digestHeader, undefined);
    assert.deepEqual(manifest.bytes, IMAGE.manifest.bytes);
  });
});

void describe("an unwanted body", () => {
  const DRIP: Misbehaviour = {
    body: Buffer.alloc(10_000, 0x20),
    bytesPerSecond: 100,
  };

  void it("does not keep its connection for long if it is slow", async (t) => {
    const upstream = await ScriptedUpstream.start(t, { redirectBlobs: {} });
    upstream.content.addImage(ALPINE, IMAGE, "1");
    upstream.when({ kind: "blob", listener: "registry" }, DRIP);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { body } = await client.openBlob(ALPINE, BLOB.digest, {
      signal: SIGNAL,
    });
    assert.equal(digestOf(await buffer(body)), BLOB.digest);
    await upstream.ended({ listener: "registry" });
    assert.ok(upstream.bytesSent({ listener: "registry" }) < 10_000);
  });

  void it("of a 429, which is read for a hint, delays no request", async (t) => {
    const upstream = await startRegistry(t);
    upstream.when({ kind: "blob" }, { ...DRIP, status: 429 });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const error = await upstreamErrorOf(
      client.openBlob(ALPINE, BLOB.digest, { signal: SIGNAL }),
    );
    assert.equal(error.kind, "rate-limited");
    await upstream.ended();
    assert.ok(upstream.bytesSent() < 10_000);
  });
});

void describe("the size of a blob", () => {
  void it("is requested by one HEAD", async (t) => {
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const head = await client.headBlob(ALPINE, BLOB.digest, SIGNAL);
    assert.equal(head.sizeBytes, 300_000);
    assert.equal(upstream.count(), 1);
  });

  for (const [name, fault] of [
    ["405", { status: 405 }],
    ["no length", { framing: "chunked" }],
  ] as const) {
    void it(`is requested by a GET if HEAD answers ${name}; the body is not read`, async (t) => {
      const upstream = await startRegistry(t);
      const large = seededBlob("large", 33_554_432);
      upstream.content.addBlob(ALPINE, large);
      upstream.when({ kind: "blob", method: "HEAD" }, fault);
      const { client, observer } = startUpstreamClient(t, [upstream.origin], {
        concurrency: 1,
      });
      const head = await client.headBlob(ALPINE, large.digest, SIGNAL);
      assert.equal(head.sizeBytes, large.sizeBytes);
      await upstream.ended();
      assert.equal(upstream.count(), 2);
      assert.equal(observer.receivedBytes, 0);
      // The one slot is free again.
      await client.headBlob(ALPINE, large.digest, SIGNAL);
    });
  }

  void it("is not requested twice if the blob does not exist", async (t) => {
    const upstream = await startRegistry(t);
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const unknown = `sha256:${"0".repeat(64)}` as Digest;
    const error = await upstreamErrorOf(
      client.headBlob(ALPINE, unknown, SIGNAL),
    );
    assert.equal(error.kind, "not-found");
    assert.equal(upstream.count(), 1);
  });
});
