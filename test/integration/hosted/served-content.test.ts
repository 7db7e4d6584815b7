import assert from "node:assert/strict";
import { truncate, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, it, type TestContext } from "node:test";
import { AuditFile } from "../../support/audit-file.ts";
import { HostedClient } from "../../support/hosted-client.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { buildImage, bytesBlob } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { WireConnection } from "../../support/wire-connection.ts";

const IMAGE = buildImage({ seed: "served", layers: [300_000] });
const OTHER = buildImage({ seed: "served other" });
const [LAYER = bytesBlob("")] = IMAGE.layers;

async function setUp(test: TestContext) {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("team/app", IMAGE, "v");
  const audit = new AuditFile(join(await tempDir(test), "audit.log"));
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    config: {
      hosted: [hostedConfig(), hostedConfig({ name: "second" })],
      audit: { file: audit.path },
    },
  });
  const client = (name: string) => new HostedClient(mirror.port, name);
  return { upstream, mirror, audit, client, app: client("local/team/app") };
}

function headOf(method: string, path: string, port: number): string {
  return `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUser-Agent: x\r\n\r\n`;
}

void describe("a hosted manifest that is requested again and again", () => {
  for (const method of ["GET", "HEAD"] as const) {
    void it(`by ${method} is answered without the parser, and a push, a move and a deletion are seen by the next request`, async (test) => {
      const { mirror, app } = await setUp(test);
      await app.push(IMAGE, "v");
      await app.push(OTHER, "w");
      const { port } = mirror;
      const path = "/v2/local/team/app/manifests/v";
      const head = headOf(method, path, port);
      const connections = [
        await WireConnection.open(test, port),
        await WireConnection.open(test, port),
      ];
      const seeEach = async (seen: string): Promise<void> => {
        for (const connection of connections) {
          const answer = await connection.ask(head);
          assert.ok(answer.includes(seen), answer.slice(0, 600));
          assert.doesNotMatch(answer, /^(?:Cache-Status|Age|Warning):/im);
        }
      };
      for (let i = 0; i < 4; i++) await seeEach(IMAGE.manifest.digest);
      const parsed = mirror.readHeads;
      for (let i = 0; i < 4; i++) await seeEach(IMAGE.manifest.digest);
      assert.equal(mirror.readHeads, parsed);
      for (const image of [OTHER, IMAGE, OTHER]) {
        await app.putManifest(image.manifest, "v");
        for (let i = 0; i < 3; i++) await seeEach(image.manifest.digest);
      }
      await app.delete("manifests/v");
      await seeEach("HTTP/1.1 404 ");
      await app.putManifest(IMAGE.manifest, "v");
      await seeEach(IMAGE.manifest.digest);
      await app.delete(`manifests/${IMAGE.manifest.digest}`);
      await seeEach("HTTP/1.1 404 ");
    });
  }

  void it("is counted and logged as hosted, by either way", async (test) => {
    const { mirror, app } = await setUp(test);
    await app.push(IMAGE, "v");
    const { port } = mirror;
    const connection = await WireConnection.open(test, port);
    const served = 'entrepot_hosted_served_bytes_total{registry="local"}';
    const before = await mirror.metric(served);
    const head = headOf("GET", "/v2/local/team/app/manifests/v", port);
    for (let i = 0; i < 10; i++) await connection.ask(head);
    const { sizeBytes } = IMAGE.manifest;
    await mirror.requested("tag");
    for (let left = 100; left > 0; left--) {
      if ((await mirror.metric(served)) === before + 10 * sizeBytes) break;
    }
    assert.equal(await mirror.metric(served), before + 10 * sizeBytes);
    const metrics = await mirror.metrics();
    assert.doesNotMatch(
      metrics,
      /entrepot_(?:served_bytes|cache_requests)_total\{[^}]*"(?:local|second)"/,
    );
    const lines = mirror.log.filter(
      ({ kind, method }) => kind === "tag" && method === "GET",
    );
    assert.equal(lines.length, 10);
    for (const line of lines) {
      assert.deepEqual(
        [line["upstream"], line["repository"], line["reference"]],
        ["local", "team/app", "v"],
      );
      assert.equal(line["outcome"], undefined);
    }
  });
});

void describe("a hosted blob", () => {
  void it("is served in ranges, as a mirrored one is", async (test) => {
    const { app } = await setUp(test);
    await app.push(IMAGE, "v");
    const path = `blobs/${LAYER.digest}`;
    const bytes = LAYER.bytes();
    const size = LAYER.sizeBytes;
    const one = await app.get(path, { range: "bytes=10-19" });
    assert.equal(one.status, 206);
    assert.equal(one.headers.get("content-range"), `bytes 10-19/${size}`);
    assert.deepEqual(one.body, bytes.subarray(10, 20));
    const rest = await app.get(path, { range: `bytes=${size - 5}-` });
    assert.deepEqual(rest.body, bytes.subarray(size - 5));
    const parts = await app.get(path, { range: "bytes=0-1,100-102" });
    assert.equal(parts.status, 206);
    assert.match(
      parts.headers.get("content-type") ?? "",
      /^multipart\/byteranges; boundary=/,
    );
    assert.ok(parts.body.includes(bytes.subarray(100, 103)));
    const other = await app.get(path, {
      range: "bytes=0-1",
      "if-range": '"other"',
    });
    assert.deepEqual([other.status, other.body.length], [200, size]);
    const same = await app.get(path, {
      range: "bytes=0-1",
      "if-range": `"${LAYER.digest}"`,
    });
    assert.deepEqual([same.status, same.body.length], [206, 2]);
    for (const range of [`bytes=${size}-`, "bytes=500-0", "bytes=-0"]) {
      const none = await app.get(path, { range });
      assert.deepEqual([none.status, none.code], [416, "RANGE_INVALID"]);
      assert.equal(none.headers.get("content-range"), `bytes */${size}`);
    }
    const whole = await app.head(path);
    assert.equal(whole.headers.get("content-length"), `${size}`);
    assert.equal(whole.headers.get("accept-ranges"), "bytes");
    const unchanged = await app.get(path, {
      "if-none-match": `"${LAYER.digest}"`,
    });
    assert.equal(unchanged.status, 304);
  });

  void it("of no bytes is served", async (test) => {
    const { app } = await setUp(test);
    const nothing = bytesBlob("");
    assert.equal((await app.putBlob(nothing)).status, 201);
    const got = await app.get(`blobs/${nothing.digest}`);
    assert.deepEqual([got.status, got.body.length], [200, 0]);
    const head = await app.head(`blobs/${nothing.digest}`);
    assert.equal(head.headers.get("content-length"), "0");
  });

  void it("whose bytes are lost is never sent in part, and is stored again by the next push", async (test) => {
    const { mirror, app } = await setUp(test);
    await app.push(IMAGE, "v");
    await truncate(mirror.blobFile(LAYER.digest), 1_000);
    const lost = await app.get(`blobs/${LAYER.digest}`);
    assert.deepEqual([lost.status, lost.code], [404, "BLOB_UNKNOWN"]);
    // A client that pushes asks first, and skips what is there.
    assert.equal((await app.head(`blobs/${LAYER.digest}`)).status, 404);
    await app.push(IMAGE, "v");
    const got = await app.get(`blobs/${LAYER.digest}`);
    assert.deepEqual(got.body, LAYER.bytes());
  });

  void it("with wrong bytes is not sent whole to a client that asks again", async (test) => {
    const { mirror, app } = await setUp(test);
    await app.push(IMAGE, "v");
    const path = `blobs/${LAYER.digest}`;
    assert.equal((await app.get(path)).status, 200);
    await writeFile(
      mirror.blobFile(LAYER.digest),
      Buffer.alloc(LAYER.sizeBytes, 1),
    );
    const wrong = await app.get(path);
    assert.deepEqual([wrong.status, wrong.code], [404, "BLOB_UNKNOWN"]);
  });
});

void describe("a hosted blob that no manifest names", () => {
  void it("is kept for a client that may push and was answered that it exists", async (test) => {
    const { mirror, app } = await setUp(test);
    for (const blob of IMAGE.blobs) await app.putBlob(blob);
    const collect = async (): Promise<void> => {
      const { status } = await mirror.operate("POST", "/gc", {});
      assert.equal(status, 200);
    };
    await collect();
    for (const { digest } of IMAGE.blobs) {
      assert.equal((await app.get(`blobs/${digest}`)).status, 200);
    }
    mirror.clock.advance(61 * 60_000);
    assert.equal((await app.head(`blobs/${LAYER.digest}`)).status, 200);
    await collect();
    // Only the layer was asked for.
    const { config } = IMAGE;
    assert.equal((await app.head(`blobs/${config.digest}`)).status, 404);
    assert.equal((await app.head(`blobs/${LAYER.digest}`)).status, 200);
    const early = await app.putManifest(IMAGE.manifest, "v");
    assert.deepEqual([early.status, early.detail], [400, config.digest]);
    await app.putBlob(config);
    assert.equal((await app.putManifest(IMAGE.manifest, "v")).status, 201);
    mirror.clock.advance(61 * 60_000);
    await collect();
    const got = await app.get(`blobs/${LAYER.digest}`);
    assert.deepEqual(got.body, LAYER.bytes());
  });

  void it("is not kept for a client that may only pull", async (test) => {
    const { mirror, app } = await setUp(test);
    await app.putBlob(LAYER);
    mirror.clock.advance(61 * 60_000);
    await mirror.reload({ hosted: [hostedConfig({ anonymousPush: "none" })] });
    assert.equal((await app.head(`blobs/${LAYER.digest}`)).status, 200);
    assert.equal((await mirror.operate("POST", "/gc", {})).status, 200);
    assert.equal((await app.head(`blobs/${LAYER.digest}`)).status, 404);
  });
});

void describe("a hosted manifest whose file is damaged", () => {
  void it("is an error until it is pushed again, and keeps its tags", async (test) => {
    const { mirror, app } = await setUp(test);
    await app.push(IMAGE, "v");
    await mirror.close();
    const { digest, sizeBytes } = IMAGE.manifest;
    await writeFile(mirror.blobFile(digest), Buffer.alloc(sizeBytes, 32));
    await mirror.open();
    const client = new HostedClient(mirror.port, "local/team/app");
    const damaged = await client.get("manifests/v");
    assert.equal(damaged.status, 500);
    assert.deepEqual(await client.tags(), ["v"]);
    assert.equal((await client.putManifest(IMAGE.manifest, "v")).status, 201);
    const got = await client.get("manifests/v");
    assert.deepEqual(got.body, IMAGE.manifest.bytes);
  });
});

void describe("a request for hosted content", () => {
  void it("by a method that is not allowed is 405, with those that are", async (test) => {
    const { app } = await setUp(test);
    const { digest } = IMAGE.manifest;
    for (const [method, path, allow] of [
      ["POST", "manifests/v", "GET, HEAD, PUT, DELETE"],
      ["PATCH", `manifests/${digest}`, "GET, HEAD, PUT, DELETE"],
      ["PUT", `blobs/${LAYER.digest}`, "GET, HEAD, DELETE"],
      ["DELETE", "tags/list", "GET, HEAD"],
      ["PUT", `referrers/${digest}`, "GET, HEAD"],
    ] as const) {
      const got = await app.ask(method, path);
      assert.deepEqual([got.status, got.code], [405, "UNSUPPORTED"], path);
      assert.equal(got.headers.get("allow"), allow);
    }
  });

  void it("whose manifest of unknown length is too large gets its answer before the end", async (test) => {
    const { mirror, app } = await setUp(test);
    const part = Buffer.alloc(1_000_000, 32);
    let parts = 0;
    const response = await fetch(
      `http://127.0.0.1:${mirror.port}/v2/local/team/app/manifests/v`,
      {
        method: "PUT",
        headers: { "content-type": IMAGE.manifest.mediaType },
        body: new ReadableStream({
          pull: (stream) => {
            if (++parts > 8) stream.close();
            else stream.enqueue(part);
          },
        }),
        duplex: "half",
      },
    );
    assert.equal(response.status, 413);
    assert.match(await response.text(), /larger than 4194304 bytes/);
    assert.equal((await app.get("tags/list")).status, 404);
  });

  void it("whose manifest ends early stores nothing", async (test) => {
    const { mirror, app } = await setUp(test);
    for (const blob of IMAGE.blobs) await app.putBlob(blob);
    const { bytes, mediaType } = IMAGE.manifest;
    const socket = connect(mirror.port, "127.0.0.1");
    socket.write(
      `PUT /v2/local/team/app/manifests/v HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${mediaType}\r\nContent-Length: ${bytes.length + 1}\r\n\r\n`,
    );
    socket.end(bytes);
    assert.match(await text(socket), /^(?:HTTP\/1\.1 400 |$)/);
    assert.equal((await app.get("tags/list")).status, 404);
    assert.equal((await app.putManifest(IMAGE.manifest, "v")).status, 201);
  });
});

void describe("a write to a mirrored repository", () => {
  void it("that pushes is refused, and the answer names the hosted registry", async (test) => {
    const { mirror, upstream, client } = await setUp(test);
    const mirrored = client("team/app");
    const place = `127.0.0.1:${mirror.port}/local/team/app`;
    for (const [method, path, allow] of [
      ["PUT", "manifests/v", "GET, HEAD, DELETE"],
      ["POST", "blobs/uploads/", ""],
      ["PATCH", "blobs/uploads/x", ""],
      ["DELETE", `blobs/${LAYER.digest}`, "GET, HEAD"],
    ] as const) {
      const got = await mirrored.ask(method, path, {
        headers: { "content-type": "application/octet-stream" },
        ...(method === "DELETE" ? {} : { body: Buffer.alloc(8_000_000) }),
      });
      assert.deepEqual([got.status, got.code], [405, "UNSUPPORTED"]);
      assert.equal(got.headers.get("allow"), allow);
      assert.ok(got.message?.endsWith(`; push to ${place}`), got.message ?? "");
    }
    assert.equal(upstream.count(), 0);
    await mirror.reload({ hosted: [hostedConfig({ isDefault: true })] });
    const named = `${upstreamOf(upstream).name}/team/app`;
    const got = await client(named).ask("POST", "blobs/uploads/");
    assert.ok(
      got.message?.endsWith(`; push to 127.0.0.1:${mirror.port}/team/app`),
    );
    await mirror.reload({ hosted: [] });
    const alone = await client("team/app").ask("POST", "blobs/uploads/");
    assert.equal(alone.status, 405);
    assert.doesNotMatch(alone.message ?? "", /push to/);
  });

  void it("that deletes a tag or a digest drops the cached copy, with its tags", async (test) => {
    const { upstream, audit, client } = await setUp(test);
    const { content } = upstream;
    content.addImage("team/app", IMAGE, "v2");
    content.addImage("team/app", OTHER, "w");
    const mirrored = client("team/app");
    const absent = await mirrored.delete("manifests/v");
    assert.deepEqual([absent.status, absent.code], [404, "MANIFEST_UNKNOWN"]);
    for (const tag of ["v", "v2", "w"]) await mirrored.get(`manifests/${tag}`);
    await mirrored.get(`manifests/${IMAGE.manifest.digest}`);
    await mirrored.get(`blobs/${LAYER.digest}`);
    const { digest } = IMAGE.manifest;
    assert.equal((await mirrored.delete(`manifests/${digest}`)).status, 202);
    upstream.forgetRequests();
    for (const tag of ["v", "v2"]) {
      const got = await mirrored.get(`manifests/${tag}`);
      assert.match(got.headers.get("cache-status") ?? "", /fwd=miss/);
    }
    const kept = await mirrored.get("manifests/w");
    assert.match(kept.headers.get("cache-status") ?? "", /hit/);
    assert.equal((await mirrored.delete("manifests/w")).status, 202);
    assert.equal((await mirrored.delete("manifests/w")).status, 404);
    const name = `${upstreamOf(upstream).name}/team/app`;
    const record = await audit.find(
      ({ reference }) => reference === `${name}:w`,
    );
    assert.deepEqual(
      [record["event"], record["client"]],
      ["purged", "127.0.0.1"],
    );
    const purged = (await audit.records()).map(({ reference }) => reference);
    for (const tag of ["v", "v2"]) assert.ok(purged.includes(`${name}:${tag}`));
  });
});

void describe("the audit log", () => {
  void it("records pushed manifests and everything that is deleted", async (test) => {
    const { audit, app } = await setUp(test);
    await app.push(IMAGE, "v");
    await app.putManifest(IMAGE.manifest);
    await app.delete("manifests/v");
    await app.delete(`manifests/${IMAGE.manifest.digest}`);
    await app.delete(`blobs/${LAYER.digest}`);
    const name = "local/team/app";
    const last = `${name}@${LAYER.digest}`;
    await audit.find(({ reference }) => reference === last);
    assert.deepEqual(
      (await audit.records()).map(({ event, client, reference }) => [
        event,
        client,
        reference,
      ]),
      [
        ["pushed", "127.0.0.1", `${name}:v`],
        ["pushed", "127.0.0.1", `${name}@${IMAGE.manifest.digest}`],
        ["deleted", "127.0.0.1", `${name}:v`],
        ["deleted", "127.0.0.1", `${name}@${IMAGE.manifest.digest}`],
        ["deleted", "127.0.0.1", last],
      ],
    );
  });
});
