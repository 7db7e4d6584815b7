import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { describe, it } from "node:test";
import { buildImage } from "../../support/image-builder.ts";
import {
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import type { RawResponse } from "../../support/raw-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import { dateless, WireConnection } from "../../support/wire-connection.ts";

const IMAGE = buildImage({ seed: "hostile" });
const HEX = IMAGE.config.digest.slice("sha256:".length);

async function setUp(
  test: AfterTest,
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  return { upstream, mirror };
}

function get(target: string, version = "HTTP/1.1"): Buffer {
  return Buffer.from(
    `GET ${target} ${version}\r\nHost: m\r\nConnection: close\r\n\r\n`,
    "latin1",
  );
}

const KNOWN = "GET /v2/a/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n";

function assertIsError(response: RawResponse, label: string): void {
  assert.ok(
    response.status >= 400 && response.status < 500,
    `${label}: ${response.status}`,
  );
  assert.equal(response.end, "complete", label);
  assert.equal(response.headers["content-type"], "application/json", label);
  assert.ok(errorCode(response), label);
  assert.doesNotMatch(response.body.toString(), /evil|etc\/passwd/i);
  for (const [name] of response.rawHeaders) assert.doesNotMatch(name, /evil/i);
}

/** Invalid targets, exactly as sent on the request line. */
const TARGETS: readonly string[] = [
  "/v2/a%2f..%2f..%2fetc/manifests/v",
  `/v2/a%2f..%2f..%2fetc%2fpasswd/blobs/sha256:${HEX}`,
  "/v2/%2e%2e/%2e%2e/manifests/v",
  "/v2/%252e%252e/manifests/v",
  "/v2/../../etc/passwd/manifests/v",
  "/v2/a/../b/manifests/v",
  "/v2/a/./manifests/v",
  "/v2/a//manifests/v",
  "//v2/a/manifests/v",
  "/v2//manifests/v",
  "/v2/a/manifests/",
  "/v2/a/manifests/v%0d%0aX-Evil:1",
  "/v2/a%0d%0aX-Evil:1/manifests/v",
  "/v2/a%00/manifests/v",
  "/v2/a/manifests/v%00",
  "/v2/a\\..\\b/manifests/v",
  "/v2/a%5c..%5cb/manifests/v",
  "/v2/a%c0%ae%c0%ae/manifests/v",
  "/v2/\u00e4/manifests/v",
  "/v2/a/manifests/v;x.css",
  "/v2/a/manifests/v#x",
  "http://evil/v2/a/manifests/v",
  "https://evil/v2/a/manifests/v",
  "evil/v2/a/manifests/v",
  "*",
  "?",
  `/v2/a/blobs/sha256:${HEX.toUpperCase()}`,
  `/v2/a/blobs/SHA256:${HEX}`,
  `/v2/a/blobs/sha256:${HEX.slice(1)}`,
  `/v2/a/blobs/sha256:${HEX}0`,
  "/v2/a/blobs/sha256:../../../../etc/passwd",
  "/v2/a/blobs/sha256:",
  `/v2/a/blobs/sha1:${HEX.slice(0, 40)}`,
  `/v2/a/blobs/sha512:${HEX}`,
  `/v2/a/blobs/md5:${HEX.slice(0, 32)}`,
  `/v2/a/blobs/${HEX}`,
  `/v2/a/manifests/sha256:${HEX.toUpperCase()}`,
  `/v2/a/referrers/sha256:${HEX.toUpperCase()}`,
  "/v2/A/manifests/v",
  "/v2/-a/manifests/v",
  "/v2/a__/manifests/v",
  "/v2/a/manifests/.v",
  `/v2/a/manifests/${"t".repeat(129)}`,
  `/v2/${"n".repeat(256)}/manifests/v`,
  `/v2/${"n".repeat(1_000)}/manifests/v`,
  `/v2/${"n/".repeat(600)}n/manifests/v`,
  `/v2/${"n".repeat(7_000)}/manifests/v`,
  `/v2/${"n".repeat(65_536)}/manifests/v`,
  `/v2/a/manifests/v?${"q=1&".repeat(20_000)}`,
  "/v2/a/manifests/v?ns=%ff",
  "/v2/a/manifests/v?%zz",
  "/v2/a/tags/list?n=1e999",
  "//",
  "/index.html",
  "/v1/_ping",
  "/v3/a/manifests/v",
  "/v2/a",
  "/v2/a/tags",
  "/v2/a/unknown/v",
  "/favicon.ico",
  "/metrics",
  "/api/v1/status",
];

/** Bytes that are not exactly one request. */
const MESSAGES: readonly (readonly [string, string])[] = [
  [
    "a NUL in the target",
    "GET /v2/a\0/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n",
  ],
  [
    "a space in the target",
    "GET /v2/a b/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n",
  ],
  ["a bare line feed", "GET /v2/ HTTP/1.1\nHost: m\n\n"],
  [
    "CR LF in the target",
    "GET /v2/a\r\nX-Evil: 1/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n",
  ],
  ["no version", "GET /v2/\r\n\r\n"],
  ["another version", "GET /v2/ HTTP/3.7\r\nHost: m\r\n\r\n"],
  ["no Host", "GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n"],
  [
    "two Hosts",
    "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: evil\r\nConnection: close\r\n\r\n",
  ],
  [
    "two lengths",
    "GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
  ],
  [
    "a length and chunks",
    "POST /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  ],
  [
    "an odd length",
    "GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: +5\r\n\r\nhello",
  ],
  ["a folded header", "GET /v2/ HTTP/1.1\r\nHost: m\r\nX: a\r\n b\r\n\r\n"],
  ["an unknown method", "EVIL /v2/ HTTP/1.1\r\nHost: m\r\n\r\n"],
  [
    "headers without an end",
    `GET /v2/ HTTP/1.1\r\nHost: m\r\n${"X: y\r\n".repeat(5_000)}\r\n`,
  ],
  ["a TLS hello", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"],
  [
    "a header of 33 KiB",
    `GET /v2/ HTTP/1.1\r\nHost: m\r\nX: ${"y".repeat(33 * 1024)}\r\n\r\n`,
  ],
  [
    "101 headers",
    `GET /v2/ HTTP/1.1\r\nHost: m\r\n${"X: y\r\n".repeat(100)}\r\n`,
  ],
  [
    "a second Host after more headers than are kept",
    `GET /v2/ HTTP/1.1\r\nHost: m\r\n${"a:b\r\n".repeat(2_100)}Host: evil\r\n\r\n`,
  ],
  ["two hosts in one", "GET /v2/ HTTP/1.1\r\nHost: m evil\r\n\r\n"],
  ["a user in Host", "GET /v2/ HTTP/1.1\r\nHost: user:pw@m\r\n\r\n"],
  ["a path in Host", "GET /v2/ HTTP/1.1\r\nHost: m/evil\r\n\r\n"],
  [
    "a GET with a long body",
    "GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 1025\r\n\r\n",
  ],
  [
    "a GET in chunks",
    "GET /v2/ HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n",
  ],
  [
    "a GET in chunks whose extensions exceed their bytes",
    `GET /v2/ HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n5;${"a".repeat(30_000)}\r\nhello`,
  ],
];

void describe("a hostile request", () => {
  void it("is a 4xx with an error of the specification, without an upstream request or a crash", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const target of TARGETS) {
      const label = target.slice(0, 80);
      assertIsError(await mirror.raw(get(target)), label);
      if (!target.startsWith("/") && target !== "*") continue;
      const head = await mirror.start(target, { method: "HEAD" }).response;
      assert.ok(head.status >= 400 && head.status < 500, label);
    }
    assert.equal(upstream.count(), 0);
    const alive = await mirror.get("/v2/a/manifests/v");
    assert.equal(alive.sha256, IMAGE.manifest.digest);
  });

  for (const [name, message] of MESSAGES) {
    void it(`of ${name} is a 4xx with an error of the specification`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      assertIsError(await mirror.raw(Buffer.from(message, "latin1")), name);
      assert.equal(upstream.count(), 0);
      assert.equal((await mirror.get("/v2/")).status, 200);
    });

    void it(`of ${name} has the same answer on a connection with known heads`, async (test) => {
      const { mirror } = await setUp(test);
      const known = await WireConnection.open(test, mirror.port);
      for (let i = 0; i < 8; i++) await known.ask(KNOWN);
      assert.ok(mirror.readHeads < 8);
      const fresh = await WireConnection.open(test, mirror.port);
      const answers: string[] = [];
      for (const connection of [known, fresh]) {
        connection.socket.end(message, "latin1");
        answers.push(dateless(await connection.rest()));
      }
      assert.match(answers[0] ?? "", /^HTTP\/1\.1 4/);
      assert.equal(answers[0], answers[1]);
    });
  }

  void it("is logged without terminal control sequences (S18)", async (test) => {
    const { mirror } = await setUp(test);
    // Node's parser refuses 7-bit control characters; of the 8-bit ones only these can be sent.
    await mirror.raw(
      Buffer.from(
        "GET /v2/ HTTP/1.1\r\nHost: m\r\nUser-Agent: a\x9b31mb\x85c\r\nConnection: close\r\n\r\n",
        "latin1",
      ),
    );
    const [agent] = mirror.log.flatMap(({ userAgent }) => userAgent ?? []);
    assert.equal(agent, "a\ufffd31mb\ufffdc");
  });

  void it("is logged in one line with truncated fields", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.start(`/v2/${"n".repeat(2_000)}/x`, {
      headers: { "User-Agent": `agent ${"a".repeat(5_000)}` },
    }).response;
    const [line] = mirror.log.filter(({ msg }) => msg === "request");
    assert.match(String(line?.["userAgent"]), /^agent a{506}…$/);
    assert.match(String(line?.["target"]), /^\/v2\/n{508}…$/);
  });
});

/** References that are neither a valid tag nor a valid digest. */
const REFERENCES: readonly string[] = [
  "",
  ".v",
  "-v",
  "v;x.css",
  "v:w",
  "sha256:",
  `sha256:${HEX.toUpperCase()}`,
  `sha256:${HEX.slice(1)}`,
  `sha384:${HEX}`,
  "t".repeat(129),
];

void describe("a manifest reference that breaks the grammar", () => {
  void it("is 404 MANIFEST_UNKNOWN for GET and HEAD, 400 for writes, and nothing is dialled", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const reference of REFERENCES) {
      const target = `/v2/a/manifests/${reference}`;
      const got = await mirror.get(target);
      assert.deepEqual(
        [got.status, errorCode(got)],
        [404, "MANIFEST_UNKNOWN"],
        target,
      );
      const head = await mirror.head(target);
      assert.equal(head.status, 404, target);
      assert.equal(
        head.headers["content-length"],
        got.headers["content-length"],
      );
      const put = await mirror.start(target, { method: "PUT" }).response;
      assert.equal(put.status, 400, target);
      assert.match(errorCode(put) ?? "", /^(?:TAG|DIGEST)_INVALID$/);
    }
    assert.equal(upstream.count(), 0);
  });

  void it("is 400 NAME_INVALID if the repository is invalid too", async (test) => {
    const { mirror } = await setUp(test);
    const got = await mirror.get("/v2/A/manifests/.v");
    assert.deepEqual([got.status, errorCode(got)], [400, "NAME_INVALID"]);
  });
});

/** The head of a request that announces a body of one TiB. */
function push(method: string, expect = ""): string {
  return `${method} /v2/a/blobs/uploads/5f3c HTTP/1.1\r\nHost: m\r\n${expect}Content-Length: 1099511627776\r\n\r\n`;
}

void describe("a method that the mirror does not support", () => {
  const paths = [
    "/v2/",
    "/v2/a/manifests/v",
    `/v2/a/manifests/${IMAGE.manifest.digest}`,
    `/v2/a/blobs/${IMAGE.config.digest}`,
    "/v2/a/blobs/uploads/",
    "/v2/a/blobs/uploads/5f3c",
    `/v2/a/blobs/uploads/?mount=${IMAGE.config.digest}&from=b`,
    "/v2/a/tags/list",
    "/v2/_catalog",
  ];

  void it("is 405 with Allow on every path of the API, and changes nothing", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.get("/v2/a/manifests/v");
    upstream.forgetRequests();
    for (const method of [
      "POST",
      "PUT",
      "PATCH",
      "DELETE",
      "OPTIONS",
      "TRACE",
      "PROPFIND",
      "QUERY",
    ]) {
      for (const path of paths) {
        const isManifest = path.includes("/manifests/");
        // A purge of the cached image.
        if (method === "DELETE" && isManifest) continue;
        const got = await mirror.start(path, {
          method,
          headers: { "Content-Length": "2", "Content-Type": "text/plain" },
        }).response;
        assert.deepEqual(
          [got.status, errorCode(got)],
          [405, "UNSUPPORTED"],
          `${method} ${path}`,
        );
        const isUpload = path.includes("/uploads/");
        const allowed = isManifest ? "GET, HEAD, DELETE" : "GET, HEAD";
        assert.equal(got.headers["allow"], isUpload ? "" : allowed);
      }
    }
    for (const method of ["GET", "HEAD"]) {
      const got = await mirror.start("/v2/a/blobs/uploads/5f3c", { method })
        .response;
      assert.deepEqual([got.status, got.headers["allow"]], [405, ""]);
    }
    assert.equal(upstream.count(), 0);
    assert.equal((await mirror.get("/v2/a/manifests/v")).status, 200);
  });

  void it("has its connection closed after the answer, without waiting for the body (R7)", async (test) => {
    const { upstream, mirror } = await setUp(test);
    for (const method of ["POST", "PUT", "PATCH"]) {
      const got = await mirror.raw(push(method));
      assert.equal(got.status, 405, method);
      assert.equal(got.headers["connection"], "close");
    }
    // A client that waits for permission to send never gets it.
    const socket = connect(mirror.port, "127.0.0.1");
    socket.write(push("PATCH", "Expect: 100-continue\r\n"));
    const answer = await text(socket);
    assert.match(answer, /^HTTP\/1\.1 405 /);
    assert.equal(upstream.count(), 0);
  });

  void it("is answered although its body is long, and no part of the body is parsed as a request", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const smuggled = "GET /v2/a/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n";
    const body = smuggled.repeat(20_000);
    for (const expect of ["", "Expect: 100-continue\r\n"]) {
      const got = await mirror.raw(
        `PUT /v2/a/manifests/v HTTP/1.1\r\nHost: m\r\n${expect}Content-Length: ${body.length}\r\n\r\n${body}`,
      );
      assert.deepEqual([got.status, errorCode(got)], [405, "UNSUPPORTED"]);
      assert.equal(got.surplusBytes, 0);
    }
    assert.equal(upstream.count(), 0);
  });
});

void describe("requests on one connection", () => {
  void it("are answered in order, each with its own body", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.get("/v2/a/manifests/v");
    const paths = [
      "/v2/",
      "/v2/a/manifests/v",
      "/v2/a/manifests/none",
      `/v2/a/blobs/${IMAGE.config.digest}`,
      "/v2/A/manifests/v",
    ];
    const all = paths
      .map((path) => `GET ${path} HTTP/1.1\r\nHost: m\r\n`)
      .join("\r\n");
    const socket = connect(mirror.port, "127.0.0.1");
    socket.write(`${all}Connection: close\r\n\r\n`);
    const answers = await text(socket);
    assert.deepEqual(
      [...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
      ["200", "200", "404", "200", "400"],
    );
    const bodies = answers.split(/HTTP\/1\.1 [^]*?\r\n\r\n/).slice(1);
    assert.equal(bodies[0], "{}");
    assert.equal(bodies[1], IMAGE.manifest.bytes.toString());
    assert.match(bodies[2] ?? "", /MANIFEST_UNKNOWN/);
    assert.equal(bodies[3], IMAGE.config.bytes().toString());
    assert.match(bodies[4] ?? "", /NAME_INVALID/);
  });

  void it("are not continued after a request with a body, which is not read", async (test) => {
    const { mirror } = await setUp(test);
    const next = "GET /v2/ HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
    for (const head of [
      "GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 1025\r\n\r\n",
      "GET /v2/ HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n",
    ]) {
      const socket = connect(mirror.port, "127.0.0.1");
      socket.on("error", () => {});
      socket.write(`${head}${"x".repeat(1_025)}\r\n0\r\n\r\n${next}`);
      let answers = "";
      socket.on("data", (part: Buffer) => (answers += part.toString()));
      await once(socket, "close");
      // Unread bytes may reset the connection before the answer is received.
      assert.match(answers, /^(?:HTTP\/1\.1 400 |$)/);
      assert.doesNotMatch(answers, /HTTP\/1\.1 200 /);
    }
  });

  void it("may have an unknown Expect header, which is ignored", async (test) => {
    const { mirror } = await setUp(test);
    for (const expectation of ["100-continue", "200-ok", "x"]) {
      const got = await mirror.get("/v2/a/manifests/v", {
        Expect: expectation,
      });
      assert.equal(got.status, 200, expectation);
      assert.equal(got.sha256, IMAGE.manifest.digest);
      assert.equal(got.surplusBytes, 0);
    }
  });

  void it("stay separate after a GET with a body", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const got = await mirror.raw(
      `GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 44\r\n\r\nGET /v2/evil/manifests/v HTTP/1.1\r\nHost: m\r\n\r\n`,
    );
    assert.equal(got.status, 200);
    assert.equal(upstream.count(), 0);
  });
});
