import assert from "node:assert/strict";
import { request as httpsRequest } from "node:https";
import { describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import type { AfterTest } from "../../support/after-test.ts";
import { Barrier } from "../../support/barrier.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import {
  buildArtifact,
  buildImage,
  seededBlob,
} from "../../support/image-builder.ts";
import { rawRequest, startRequest } from "../../support/raw-client.ts";
import {
  ScriptedUpstream,
  type ScriptedUpstreamOptions,
} from "../../support/scripted-upstream.ts";
import type { Misbehaviour } from "../../support/wire-answer.ts";

const BLOB = seededBlob("blob", 600_000);
const BLOB_PATH = `/v2/a/b/blobs/${BLOB.digest}`;
const IMAGE = buildImage({ seed: "image" });

async function startUpstream(
  test: AfterTest,
  options: ScriptedUpstreamOptions = {},
): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(test, options);
  upstream.content.addBlob("a/b", BLOB);
  upstream.content.addImage("a/b", IMAGE, "1");
  return upstream;
}

void describe("an honest scripted upstream", () => {
  void it("serves manifests by tag and digest, and HEAD with the same headers", async (test) => {
    const upstream = await startUpstream(test);
    const { port } = upstream.registry;
    for (const reference of ["1", IMAGE.manifest.digest]) {
      const path = `/v2/a/b/manifests/${reference}`;
      const got = await rawRequest({ port, path });
      const head = await rawRequest({ port, path, method: "HEAD" });
      assert.deepEqual(got.body, IMAGE.manifest.bytes);
      assert.equal(got.headers["docker-content-digest"], IMAGE.manifest.digest);
      assert.deepEqual(head.rawHeaders, got.rawHeaders);
      assert.deepEqual([head.bodyBytes, head.end], [0, "complete"]);
    }
    assert.equal(upstream.count({ kind: "manifest", method: "HEAD" }), 2);
    assert.equal(upstream.count({ kind: "manifest", reference: "1" }), 2);
    const missing = await rawRequest({ port, path: "/v2/a/b/manifests/2" });
    assert.equal(missing.status, 404);
  });

  void it("serves ranges of blobs, and says when there are none", async (test) => {
    const upstream = await startUpstream(test);
    const { port } = upstream.registry;
    const ask = (range: string): ReturnType<typeof rawRequest> =>
      rawRequest({ port, path: BLOB_PATH, headers: { Range: range } });
    const middle = await ask("bytes=100-199");
    assert.equal(middle.status, 206);
    assert.equal(middle.headers["content-range"], "bytes 100-199/600000");
    assert.deepEqual(middle.body, BLOB.read(100, 100));
    assert.deepEqual((await ask("bytes=599990-")).body, BLOB.read(599_990, 10));
    assert.deepEqual((await ask("bytes=-5")).body, BLOB.read(599_995, 5));
    assert.equal((await ask("bytes=600000-")).status, 416);
    const whole = await rawRequest({ port, path: BLOB_PATH });
    assert.equal(whole.sha256, BLOB.digest);
    assert.equal(upstream.bytesSent({ hasRange: false }), 600_000);
  });

  void it("pages tags and referrers", async (test) => {
    const upstream = await startUpstream(test, { pageSize: 1 });
    const { port } = upstream.registry;
    upstream.content.addManifest("a/b", IMAGE.manifest, "0");
    for (const seed of ["s", "t"]) {
      upstream.content.addImage(
        "a/b",
        buildArtifact({
          seed,
          artifactType: "text/x",
          subject: IMAGE.manifest,
        }),
      );
    }
    for (const start of [
      "/v2/a/b/tags/list",
      `/v2/a/b/referrers/${IMAGE.manifest.digest}`,
    ]) {
      const first = await rawRequest({ port, path: start });
      const next = /^<([^>]+)>; rel="next"$/.exec(
        first.headers["link"] ?? "",
      )?.[1];
      assert.ok(next !== undefined, start);
      const second = await rawRequest({ port, path: next });
      assert.equal(second.headers["link"], undefined);
      assert.notDeepEqual(second.body, first.body);
    }
  });

  void it("has the tag in place of the referrers API when that is off", async (test) => {
    const upstream = await startUpstream(test, { referrersApi: false });
    const { port } = upstream.registry;
    upstream.content.addImage(
      "a/b",
      buildArtifact({
        seed: "s",
        artifactType: "text/x",
        subject: IMAGE.manifest,
      }),
    );
    const { digest } = IMAGE.manifest;
    const api = await rawRequest({ port, path: `/v2/a/b/referrers/${digest}` });
    assert.equal(api.status, 404);
    const tag = await rawRequest({
      port,
      path: `/v2/a/b/manifests/${digest.replace(":", "-")}`,
    });
    assert.equal(tag.status, 200);
  });

  void it("asks for a bearer token of another port, that ends with its time", async (test) => {
    const clock = new FakeClock();
    const upstream = await startUpstream(test, {
      clock,
      auth: { scheme: "bearer", realm: "port", tokenField: "access_token" },
    });
    const { port } = upstream.registry;
    const refused = await rawRequest({ port, path: BLOB_PATH });
    assert.equal(refused.status, 401);
    const realm =
      /realm="http:\/\/127\.0\.0\.1:(\d+)\/token".*scope="(.+)"/.exec(
        refused.headers["www-authenticate"] ?? "",
      );
    const given = await rawRequest({
      port: Number(realm?.[1]),
      path: `/token?service=scripted&scope=${realm?.[2]}`,
    });
    const token = JSON.parse(given.body.toString()) as { access_token: string };
    const headers = { Authorization: `Bearer ${token.access_token}` };
    const status = async (path = BLOB_PATH): Promise<number> =>
      (await rawRequest({ port, path, headers })).status;
    assert.equal(await status(), 200);
    assert.equal(await status("/v2/c/manifests/1"), 401);
    clock.advance(301_000);
    assert.equal(await status(), 401);
    assert.equal(upstream.count({ listener: "token" }), 1);
  });

  void it("takes Basic credentials", async (test) => {
    const upstream = await startUpstream(test, {
      auth: { scheme: "basic", users: { u: "p" } },
    });
    const { port } = upstream.registry;
    const status = async (text: string): Promise<number> => {
      const credential = Buffer.from(text).toString("base64");
      const headers = { Authorization: `Basic ${credential}` };
      return (await rawRequest({ port, path: "/v2/", headers })).status;
    };
    assert.equal(await status("u:p"), 200);
    assert.equal(await status("u:q"), 401);
  });

  void it("redirects blobs to another port by a signature that expires", async (test) => {
    const upstream = await startUpstream(test, { redirectBlobs: {} });
    const asked = await rawRequest({
      port: upstream.registry.port,
      path: BLOB_PATH,
    });
    assert.equal(asked.status, 307);
    const target = new URL(asked.headers["location"] ?? "");
    const follow = (headers = {}): ReturnType<typeof rawRequest> =>
      rawRequest({
        port: Number(target.port),
        path: target.pathname + target.search,
        headers,
      });
    assert.equal((await follow()).sha256, BLOB.digest);
    assert.equal((await follow({ Authorization: "Bearer x" })).status, 400);
    upstream.expireSignatures();
    assert.equal((await follow()).status, 403);
    assert.equal(upstream.count({ kind: "cdn" }), 3);
  });

  void it("speaks TLS with a certificate of the authority", async (test) => {
    const authority = createCertificateAuthority();
    const upstream = await startUpstream(test, { tls: authority.issue() });
    const status = await new Promise((resolve, reject) => {
      httpsRequest(
        `${upstream.origin}/v2/`,
        { ca: authority.cert, agent: false },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      )
        .on("error", reject)
        .end();
    });
    assert.equal(status, 200);
  });

  void it("answers several requests on one connection, in order", async (test) => {
    const upstream = await startUpstream(test);
    const first = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    const both = await rawRequest({
      port: upstream.registry.port,
      path: "",
      raw: first + first.replace("/v2/", "/v2/none"),
      leave: { atByte: Infinity, by: "fin" },
    });
    assert.equal(both.status, 200);
    await upstream.ended({}, 2);
    assert.equal(upstream.registry.connectionCount, 1);
  });
});

void describe("a scripted fault", () => {
  const cases: readonly {
    readonly name: string;
    readonly fault: Misbehaviour;
    readonly end: string;
    readonly bodyBytes: number;
    readonly framing?: string;
  }[] = [
    {
      name: "a FIN in the middle",
      fault: { cut: { atByte: 1000, by: "fin" } },
      end: "fin",
      bodyBytes: 1000,
      framing: "content-length: 600000",
    },
    {
      name: "a RST in the middle",
      fault: { cut: { atByte: 1000, by: "rst" } },
      end: "rst",
      bodyBytes: 1000,
    },
    {
      name: "a FIN before the first byte",
      fault: { cut: { atByte: 0, by: "fin" } },
      end: "fin",
      bodyBytes: 0,
    },
    {
      name: "a FIN in a chunked body",
      fault: { framing: "chunked", cut: { atByte: 1000, by: "fin" } },
      end: "fin",
      bodyBytes: 1000,
      framing: "transfer-encoding: chunked",
    },
    {
      name: "a whole chunked body",
      fault: { framing: "chunked" },
      end: "complete",
      bodyBytes: 600_000,
      framing: "transfer-encoding: chunked",
    },
    {
      name: "a body that ends with the connection",
      fault: { framing: "eof" },
      end: "eof",
      bodyBytes: 600_000,
      framing: "connection: close",
    },
    {
      name: "such a body cut by FIN",
      fault: { framing: "eof", cut: { atByte: 1000, by: "fin" } },
      end: "eof",
      bodyBytes: 1000,
    },
    {
      name: "such a body cut by RST",
      fault: { framing: "eof", cut: { atByte: 1000, by: "rst" } },
      end: "rst",
      bodyBytes: 1000,
    },
    {
      name: "a body that is too short and says so",
      fault: { shortenTo: 10 },
      end: "complete",
      bodyBytes: 10,
      framing: "content-length: 10",
    },
    {
      name: "a body that is too long and says so",
      fault: { appendBytes: 10 },
      end: "complete",
      bodyBytes: 600_010,
    },
    {
      name: "a body that is shorter than was said",
      fault: { contentLength: 600_001 },
      end: "fin",
      bodyBytes: 600_000,
    },
  ];
  for (const { name, fault, end, bodyBytes, framing } of cases) {
    void it(`${name} is what a client sees`, async (test) => {
      const upstream = await startUpstream(test);
      upstream.when({ kind: "blob" }, fault, { times: 1 });
      const { port } = upstream.registry;
      const got = await rawRequest({ port, path: BLOB_PATH });
      assert.deepEqual([got.end, got.bodyBytes], [end, bodyBytes]);
      if (framing !== undefined) {
        const lines = got.rawHeaders.map((header) => header.join(": "));
        assert.ok(lines.includes(framing), lines.join("\n"));
      }
      assert.deepEqual(
        got.body.subarray(0, 600_000),
        BLOB.read(0, Math.min(bodyBytes, 600_000)),
      );
      const again = await rawRequest({ port, path: BLOB_PATH });
      assert.equal(again.sha256, BLOB.digest, "the next time it is honest");
    });
  }

  void it("flips a byte of the whole, in a range too", async (test) => {
    const upstream = await startUpstream(test);
    const { port } = upstream.registry;
    for (const [flip, at] of [
      ["first", 0],
      ["middle", 300_000],
      ["last", 599_999],
      [7, 7],
    ] as const) {
      upstream.clearRules();
      upstream.when({ kind: "blob" }, { flip });
      const { body } = await rawRequest({ port, path: BLOB_PATH });
      const honest = BLOB.bytes();
      assert.equal(body[at], (honest[at] ?? 0) ^ 0xff);
      body[at] = honest[at] ?? 0;
      assert.deepEqual(body, honest);
    }
    upstream.clearRules();
    upstream.when({ kind: "blob" }, { flip: "last" });
    const tail = await rawRequest({
      port,
      path: BLOB_PATH,
      headers: { Range: "bytes=599990-" },
    });
    assert.notDeepEqual(tail.body, BLOB.read(599_990, 10));
    assert.deepEqual(tail.body.subarray(0, 9), BLOB.read(599_990, 9));
  });

  void it("compresses, drops headers, answers another status, or writes anything", async (test) => {
    const upstream = await startUpstream(test);
    const { port } = upstream.registry;
    const path = "/v2/a/b/manifests/1";
    upstream.when({ kind: "manifest" }, { gzip: true }, { times: 1 });
    upstream.when(
      { kind: "manifest" },
      {
        headers: {
          "content-length": undefined,
          "docker-content-digest": undefined,
          "x-more": ["a", "b"],
        },
      },
      { times: 1 },
    );
    upstream.when(
      { kind: "manifest" },
      { status: 429, headers: { "retry-after": "7" }, body: "slow down" },
      { times: 1 },
    );
    upstream.when({ kind: "manifest" }, { raw: "nonsense" }, { times: 1 });
    const zipped = await rawRequest({ port, path });
    assert.equal(zipped.headers["content-encoding"], "gzip");
    assert.deepEqual(gunzipSync(zipped.body), IMAGE.manifest.bytes);
    const bare = await rawRequest({ port, path });
    assert.equal(bare.headers["docker-content-digest"], undefined);
    assert.equal(bare.headers["content-length"], undefined);
    assert.equal(bare.headers["x-more"], "a, b");
    const limited = await rawRequest({ port, path });
    assert.deepEqual(
      [limited.status, limited.headers["retry-after"], String(limited.body)],
      [429, "7", "slow down"],
    );
    const broken = await rawRequest({ port, path });
    assert.deepEqual([broken.status, broken.end], [0, "fin"]);
    assert.equal((await rawRequest({ port, path })).status, 200);
  });

  void it("is not spent on a request without its token, unless it says so", async (test) => {
    const upstream = await startUpstream(test, { auth: { scheme: "bearer" } });
    const { port } = upstream.registry;
    const ask = (): ReturnType<typeof rawRequest> =>
      rawRequest({ port, path: BLOB_PATH });
    upstream.when({ kind: "blob" }, { status: 500 });
    assert.equal((await ask()).status, 401);
    upstream.when({ kind: "blob" }, { status: 503 }, { beforeAuth: true });
    assert.equal((await ask()).status, 503);
  });
});

void describe("a barrier in an upstream", () => {
  void it("holds all who ask at a byte until it is released", async (test) => {
    const upstream = await startUpstream(test);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: 1000, barrier } });
    const { port } = upstream.registry;
    const exchanges = [1, 2, 3].map(() =>
      startRequest({ port, path: BLOB_PATH, body: "hash" }),
    );
    await barrier.arrived(3);
    await Promise.all(exchanges.map((one) => one.received(1000)));
    assert.deepEqual(
      exchanges.map((one) => one.bodyBytes),
      [1000, 1000, 1000],
    );
    assert.equal(upstream.bytesSent(), 3000);
    barrier.release();
    for (const { response } of exchanges) {
      assert.equal((await response).sha256, BLOB.digest);
    }
    await upstream.ended();
    assert.equal(upstream.bytesSent(), 1_800_000);
  });

  void it("holds before the status line", async (test) => {
    const upstream = await startUpstream(test);
    const barrier = new Barrier();
    upstream.when({}, { hold: { at: "headers", barrier } });
    const exchange = startRequest({
      port: upstream.registry.port,
      path: "/v2/",
    });
    await upstream.arrived(1, { kind: "ping" });
    await barrier.arrived();
    assert.equal(exchange.bodyBytes, 0);
    barrier.release();
    assert.equal((await exchange.response).status, 200);
  });

  void it("leaves nothing open when the upstream closes while it stalls", async (test) => {
    const upstream = await startUpstream(test);
    upstream.when({ kind: "blob" }, { stallAt: 500 });
    upstream.when({ kind: "ping" }, { stallAt: "headers" });
    const { port } = upstream.registry;
    const blob = startRequest({ port, path: BLOB_PATH });
    const ping = startRequest({ port, path: "/v2/" });
    await blob.received(500);
    await upstream.arrived(2);
    await upstream.close();
    assert.equal((await blob.response).bodyBytes, 500);
    assert.equal((await ping.response).status, 0);
    assert.equal(upstream.registry.openConnectionCount, 0);
    await upstream.ended();
  });

  void it("refuses, swallows and serves again on the same port", async (test) => {
    const upstream = await startUpstream(test);
    const { port } = upstream.registry;
    await upstream.stop();
    await assert.rejects(fetch(`${upstream.origin}/v2/`));
    await upstream.restart();
    assert.equal(upstream.registry.port, port);
    assert.equal((await rawRequest({ port, path: "/v2/" })).status, 200);
    upstream.blackHole();
    const swallowed = await rawRequest({ port, path: "/v2/", timeoutMs: 50 });
    assert.equal(swallowed.end, "timeout");
    upstream.blackHole(false);
    assert.equal((await rawRequest({ port, path: "/v2/" })).status, 200);
    assert.equal(upstream.count(), 2);
  });
});
