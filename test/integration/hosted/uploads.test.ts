import assert from "node:assert/strict";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { connect } from "node:net";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { digestOf } from "../../../src/oci/digest.ts";
import { diskLayout } from "../../../src/storage/local/root/disk-layout.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import {
  locationOf,
  PushClient,
  withDigest,
} from "../../support/push-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { seededBytes } from "../../support/seeded-bytes.ts";
import { hostedConfig } from "../../support/hosted-config.ts";

const BYTES = Buffer.from("bytes of a layer that is pushed");
const DIGEST = digestOf(BYTES);
const BIG = seededBytes("pushed", 3_000_000).read(0, 3_000_000);

const LOCAL = hostedConfig();
const TEAM = hostedConfig({ name: "team", hostnames: ["registry.corp"] });

function dockerHub(upstream: ScriptedUpstream) {
  return upstreamOf(upstream, { name: "docker.io", libraryPrefix: true });
}

async function setUp(
  test: AfterTest,
  overrides: Parameters<typeof hostedConfig>[0] = {},
) {
  const upstream = await ScriptedUpstream.start(test);
  const mirror = await startMirror(test, [dockerHub(upstream)], {
    config: { hosted: [{ ...LOCAL, ...overrides }, TEAM] },
  });
  const client = new PushClient(test, mirror.port);
  const { partialFolder } = diskLayout(mirror.root);
  return {
    upstream,
    mirror,
    client,
    partials: async () =>
      (await readdir(partialFolder)).filter((name) => name !== "boot-id"),
  };
}

void describe("pushing a blob", () => {
  void it("works in every form of the specification, on one connection", async (test) => {
    const { client, mirror, partials } = await setUp(test);
    for (const repository of ["local/a", "team/a"]) {
      for (const bytes of [BYTES, BIG, Buffer.alloc(0)]) {
        for (const algorithm of ["sha256", "sha512"] as const) {
          const digest = digestOf(bytes, algorithm);
          const query = `?digest-algorithm=${algorithm}`;
          const whole = await client.send(
            "POST",
            `/v2/${repository}/blobs/uploads/?digest=${digest}`,
            { body: bytes },
          );
          const put = await client.finish(
            await client.begin(repository, query),
            digest,
            { body: bytes },
          );
          const streamedTo = await client.begin(repository);
          const streamed = await client.send("PATCH", streamedTo, {
            body: bytes,
            chunkBytes: 100_000,
          });
          assert.equal(streamed.status, 202);
          const closed = await client.finish(locationOf(streamed), digest);
          for (const answer of [whole, put, closed]) {
            assert.equal(answer.status, 201, answer.text);
            const { location, ...headers } = answer.headers;
            assert.equal(location, `/v2/${repository}/blobs/${digest}`);
            assert.equal(headers["docker-content-digest"], digest);
            assert.equal(headers["content-length"], "0");
          }
          const pulled = await mirror.get(locationOf(closed));
          assert.equal(pulled.status, 200);
          assert.deepEqual(pulled.body, bytes);
        }
      }
    }
    assert.equal(client.connections, 1);
    assert.deepEqual(await partials(), []);
  });

  void it("states the progress of an upload as clients expect it", async (test) => {
    const { client } = await setUp(test);
    const begun = await client.send("POST", "/v2/local/a/blobs/uploads/");
    const location = locationOf(begun);
    const id = begun.headers["docker-upload-uuid"] ?? "";
    assert.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    assert.equal(location, `/v2/local/a/blobs/uploads/${id}`);
    assert.equal(begun.headers["oci-chunk-min-length"], "1");
    assert.equal(begun.headers["range"], "0-0");
    assert.equal(begun.headers["content-length"], "0");
    const first = await client.send("PATCH", location, {
      body: BYTES.subarray(0, 10),
      headers: { "Content-Range": "0-9" },
    });
    assert.equal(first.status, 202);
    assert.equal(first.headers["range"], "0-9");
    const late = await client.send("PATCH", location, {
      body: BYTES.subarray(5, 15),
      headers: { "Content-Range": "5-14" },
    });
    assert.equal(late.status, 416);
    assert.equal(late.code, "RANGE_INVALID");
    assert.equal(late.headers["range"], "0-9");
    assert.equal(late.headers["location"], location);
    const status = await client.send("GET", location);
    assert.equal(status.status, 204);
    assert.equal(status.headers["range"], "0-9");
    assert.equal(status.headers["location"], location);
    const last = { "Content-Range": `10-${BYTES.length - 1}` };
    const request = { body: BYTES.subarray(10), headers: last };
    const done = await client.finish(location, DIGEST, request);
    assert.equal(done.status, 201);
    assert.equal((await client.send("GET", location)).status, 404);
  });

  void it("answers in the spelling of the request", async (test) => {
    const { client, mirror } = await setUp(test);
    const spellings = [
      { base: "/v2/local/a", query: "" },
      { base: "/local/v2/a", query: "" },
      { base: "/v2/a", query: "?ns=local" },
      { base: "/v2/local/a", query: "?ns=local" },
    ];
    for (const { base, query } of spellings) {
      const started = await client.send(
        "POST",
        `${base}/blobs/uploads/${query}`,
      );
      assert.equal(started.status, 202, started.text);
      const location = locationOf(started);
      assert(location.startsWith(`${base}/blobs/uploads/`), location);
      assert(location.endsWith(query), location);
      const done = await client.finish(location, DIGEST, { body: BYTES });
      assert.equal(done.headers["location"], `${base}/blobs/${DIGEST}${query}`);
      assert.equal((await mirror.get(locationOf(done))).status, 200);
    }
    const byHost = await client.send("POST", "/v2/a/blobs/uploads/", {
      headers: { Host: "registry.corp" },
    });
    assert.equal(byHost.status, 202);
    assert.match(locationOf(byHost), /^\/v2\/a\/blobs\/uploads\//);
  });

  void it("refuses lies, and leaves nothing behind", async (test) => {
    const { client, mirror, partials } = await setUp(test);
    const wrong = digestOf(Buffer.from("other"));
    const location = await client.begin("local/a");
    const mismatch = await client.finish(location, wrong, { body: BYTES });
    assert.equal(mismatch.status, 400);
    assert.equal(mismatch.code, "DIGEST_INVALID");
    assert.equal(
      (await client.send("GET", location)).code,
      "BLOB_UPLOAD_UNKNOWN",
    );
    const kept = await client.begin("local/a");
    for (const digest of ["", "sha256:abc", "md5:00"]) {
      const answer = await client.finish(kept, digest, { body: BYTES });
      assert.equal(answer.code, "DIGEST_INVALID");
    }
    assert.equal((await client.send("PUT", kept)).code, "DIGEST_INVALID");
    const lengths = await client.send("PATCH", kept, {
      body: BYTES,
      headers: { "Content-Range": "0-3" },
    });
    assert.equal(lengths.code, "SIZE_INVALID");
    const form = await client.send("PATCH", kept, {
      body: BYTES,
      headers: { "Content-Range": "first" },
    });
    assert.equal(form.code, "BLOB_UPLOAD_INVALID");
    const longer = await client.send("PATCH", kept, {
      body: BYTES,
      chunkBytes: 10,
      headers: { "Content-Range": "0-3" },
    });
    assert.equal(longer.code, "SIZE_INVALID");
    assert.equal((await client.send("GET", kept)).status, 404);
    const foreign = await client.begin("local/a");
    for (const repository of ["local/b", "team/a"]) {
      const path = foreign.replace("/v2/local/a/", `/v2/${repository}/`);
      for (const method of ["GET", "PATCH", "PUT", "DELETE"]) {
        const target = method === "PUT" ? withDigest(path, DIGEST) : path;
        const answer = await client.send(method, target);
        assert.equal(answer.code, "BLOB_UPLOAD_UNKNOWN", method);
      }
    }
    assert.equal((await client.send("DELETE", foreign)).status, 204);
    assert.equal((await client.send("DELETE", foreign)).status, 404);
    assert.equal((await mirror.get(`/v2/local/a/blobs/${DIGEST}`)).status, 404);
    assert.deepEqual(await partials(), []);
  });

  void it("waits for permission to send", async (test) => {
    const { client, mirror } = await setUp(test);
    const location = await client.begin("local/a");
    const socket = connect(mirror.port, "127.0.0.1");
    releaseAfter(test, () => void socket.destroy());
    let text = "";
    socket.setEncoding("latin1").on("data", (part: string) => {
      text += part;
    });
    socket.write(
      `PUT ${withDigest(location, DIGEST)} HTTP/1.1\r\nHost: 127.0.0.1\r\n` +
        `Content-Length: ${BYTES.length}\r\nExpect: 100-continue\r\n\r\n`,
    );
    while (!text.includes("100 Continue")) await once(socket, "data");
    socket.write(BYTES);
    while (!text.includes("201 Created")) await once(socket, "data");
    socket.write(
      `PATCH ${location} HTTP/1.1\r\nHost: 127.0.0.1\r\n` +
        `Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n`,
    );
    while (!text.includes("404 Not Found")) await once(socket, "data");
    assert.equal(text.match(/100 Continue/g)?.length, 1);
  });

  void it("goes on after the client has lost its connection, and after a restart", async (test) => {
    const { client, mirror } = await setUp(test);
    const location = await client.begin("local/a");
    const half = BIG.subarray(0, 1_500_000);
    const socket = connect(mirror.port, "127.0.0.1");
    await once(socket, "connect");
    socket.write(
      `PATCH ${location} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${BIG.length}\r\n\r\n`,
    );
    await new Promise((resolve) => socket.write(half, resolve));
    socket.destroy();
    const offset = async (): Promise<number> => {
      const { headers } = await new PushClient(test, mirror.port).send(
        "GET",
        location,
      );
      return Number(/^0-(\d+)$/.exec(headers["range"] ?? "")?.[1]) + 1;
    };
    while ((await offset()) < half.length) await setImmediate();
    await mirror.restart();
    assert.equal(await offset(), half.length);
    const again = new PushClient(test, mirror.port);
    const rest = BIG.subarray(half.length);
    const patched = await again.send("PATCH", location, {
      body: rest,
      headers: { "Content-Range": `${half.length}-${BIG.length - 1}` },
    });
    assert.equal(patched.status, 202, patched.text);
    const done = await again.finish(location, digestOf(BIG));
    assert.equal(done.status, 201);
    const pulled = await mirror.get(locationOf(done));
    assert.deepEqual(pulled.body, BIG);
  });

  void it("gives a client its answer although it still sends", async (test) => {
    const { client, mirror } = await setUp(test, { quotaBytes: 1_000 });
    const location = await client.begin("local/a");
    const refused = await client.send("PATCH", location, { body: BIG });
    assert.equal(refused.status, 403);
    assert.equal(refused.code, "DENIED");
    assert.match(refused.text, /the quota of local is used up/);
    // Noticed only when some of it is stored; the client sends 3 MB more.
    const unannounced = await client.send(
      "PATCH",
      await client.begin("local/a"),
      { body: BIG, chunkBytes: 900 },
    );
    assert.equal(unannounced.code, "DENIED");
    const unknown = await client.send("PATCH", location, {
      body: BIG,
      chunkBytes: 64_000,
    });
    assert.equal(unknown.code, "BLOB_UPLOAD_UNKNOWN");
    const small = await client.push("local/a", DIGEST, BYTES);
    assert.equal(small.status, 201);
    assert.equal(
      await mirror.metric('entrepot_uploads_in_progress{registry="local"}'),
      0,
    );
    const pushedBytes = await mirror.metric(
      'entrepot_pushed_bytes_total{registry="local"}',
    );
    assert(pushedBytes >= BYTES.length && pushedBytes <= 1_000 + BYTES.length);
  });

  void it("refuses a method that the path does not have", async (test) => {
    const { client } = await setUp(test);
    const all = await client.send("GET", "/v2/local/a/blobs/uploads/");
    assert.equal(all.status, 405);
    assert.equal(all.headers["allow"], "POST");
    const location = await client.begin("local/a");
    const one = await client.send("POST", location);
    assert.equal(one.status, 405);
    assert.equal(one.headers["allow"], "GET, HEAD, PATCH, PUT, DELETE");
  });

  void it("limits the open uploads", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const limits = {
      connections: 0,
      connectionsPerAddress: 0,
      fills: 0,
      uploads: 2,
    };
    const mirror = await startMirror(test, [dockerHub(upstream)], {
      config: { hosted: [LOCAL], limits },
    });
    const client = new PushClient(test, mirror.port);
    await client.begin("local/a");
    const second = await client.begin("local/b");
    const third = await client.send("POST", "/v2/local/c/blobs/uploads/");
    assert.equal(third.status, 429);
    assert.equal(third.code, "TOOMANYREQUESTS");
    assert.match(third.headers["retry-after"] ?? "", /^[1-9]\d*$/);
    assert.equal((await client.send("DELETE", second)).status, 204);
    await client.begin("local/c");
  });

  void it("drops an upload after the time of its registry", async (test) => {
    const schedule = new ManualSchedule();
    const mirror = await startMirror(test, [], {
      uploadSchedule: schedule.start,
      config: { hosted: [{ ...LOCAL, uploadExpiryMs: 60_000 }, TEAM] },
    });
    const client = new PushClient(test, mirror.port);
    const short = await client.begin("local/a");
    const long = await client.begin("team/a");
    mirror.clock.advance(60_000);
    while (schedule.delaysMs.length === 0) await setImmediate();
    schedule.runNext();
    while (schedule.delaysMs.length === 0) await setImmediate();
    assert.equal((await client.send("GET", short)).status, 404);
    assert.equal((await client.send("GET", long)).status, 204);
  });
});

void describe("mounting a blob", () => {
  void it("links what other repositories have, mirrored ones included", async (test) => {
    const { client, mirror, upstream } = await setUp(test);
    const image = buildImage({ seed: "base", layers: [200_000] });
    upstream.content.addImage("library/base", image, "1");
    const layer = image.layers[0]?.digest ?? DIGEST;
    const pulled = await mirror.get(
      `/v2/docker.io/library/base/blobs/${layer}`,
    );
    assert.equal(pulled.status, 200);
    await mirror.settled();
    await client.push("team/other", DIGEST, BYTES);
    const mounts = [
      { from: "docker.io/library/base", digest: layer },
      { from: "docker.io/base", digest: layer },
      { from: "team/other", digest: DIGEST },
      { from: "", digest: DIGEST },
      { from: "", digest: layer },
    ];
    for (const [at, { from, digest }] of mounts.entries()) {
      const query = `?mount=${digest}${from === "" ? "" : `&from=${from}`}`;
      const path = `/v2/local/app-${at}/blobs/uploads/${query}`;
      const mounted = await client.send("POST", path);
      assert.equal(mounted.status, 201, `${from}: ${mounted.text}`);
      const location = `/v2/local/app-${at}/blobs/${digest}`;
      assert.equal(mounted.headers["location"], location);
      assert.equal(mounted.headers["docker-content-digest"], digest);
      assert.equal((await mirror.head(location)).status, 200);
    }
    const absent = [
      { from: "team/nothing", digest: DIGEST },
      { from: "docker.io/library/base", digest: DIGEST },
      { from: "unknown.example/x", digest: DIGEST },
      { from: "../..", digest: DIGEST },
      { from: "team/other", digest: digestOf(Buffer.from("none")) },
    ];
    for (const { from, digest } of absent) {
      const query = `?mount=${digest}&from=${encodeURIComponent(from)}`;
      const path = `/v2/local/b/blobs/uploads/${query}`;
      const answer = await client.send("POST", path);
      assert.equal(answer.status, 202, from);
      assert.equal(
        (await client.send("DELETE", locationOf(answer))).status,
        204,
      );
    }
  });
});
