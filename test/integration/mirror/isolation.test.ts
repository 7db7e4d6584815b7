import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import {
  errorCode,
  startMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const IMAGE = buildImage({ seed: "isolation", layers: [200_000] });
const blobs = Array.from({ length: 6 }, (_, i) =>
  seededBlob(`isolation ${i}`, 500_000),
);

void describe("an upstream whose downloads hang", () => {
  void it("delays neither its own manifests nor another upstream", async (test) => {
    const slow = await ScriptedUpstream.start(test);
    const quick = await ScriptedUpstream.start(test);
    for (const upstream of [slow, quick]) {
      upstream.content.addImage("a", IMAGE, "v");
      for (const blob of blobs) upstream.content.addBlob("a", blob);
    }
    const mirror = await startMirror(test, [
      upstreamOf(slow, { concurrency: 2, idleTimeoutMs: 60_000 }),
      upstreamOf(quick, {
        name: "quick.example",
        isDefault: false,
        concurrency: 2,
      }),
    ]);
    const barrier = new Barrier();
    slow.when({ kind: "blob" }, { hold: { at: 100_000, barrier } });
    const held = blobs.map((blob) => mirror.get(`/v2/a/blobs/${blob.digest}`));
    await mirror.asked(blobs.length);
    await slow.sent(200_000, { kind: "blob" });
    const manifest = await mirror.get("/v2/a/manifests/v");
    assert.equal(manifest.sha256, IMAGE.manifest.digest);
    const head = await mirror.get("/v2/quick.example/a/manifests/v");
    assert.equal(head.status, 200);
    const layer = IMAGE.layers[0];
    const got = await mirror.get(`/v2/quick.example/a/blobs/${layer?.digest}`);
    assert.equal(got.sha256, layer?.digest);
    assert.equal(slow.count({ kind: "blob" }), 2);
    barrier.release();
    for (const [i, answer] of (await Promise.all(held)).entries()) {
      assert.equal(answer.sha256, blobs[i]?.digest);
    }
    assert.equal(slow.count({ kind: "blob" }), blobs.length);
  });

  void it("gives the slot of a download without readers to one that a client waits for", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const [unread, wanted] = blobs;
    assert.ok(unread && wanted);
    for (const blob of [unread, wanted]) upstream.content.addBlob("a", blob);
    const mirror = await startMirror(test, [
      upstreamOf(upstream, { concurrency: 1, idleTimeoutMs: 60_000 }),
    ]);
    const barrier = new Barrier();
    upstream.when(
      { reference: unread.digest },
      { hold: { at: 300_000, barrier } },
      { times: 1 },
    );
    // After a FIN the client could still read, so its end is noticed only at the next write.
    const leave = { atByte: 200_000, by: "rst" } as const;
    await mirror.start(`/v2/a/blobs/${unread.digest}`, { leave }).response;
    await mirror.requested("blob");
    const got = await mirror.get(`/v2/a/blobs/${wanted.digest}`);
    assert.equal(got.sha256, wanted.digest);
    await mirror.settled();
    barrier.release();
    const rest = await mirror.get(`/v2/a/blobs/${unread.digest}`);
    assert.equal(rest.sha256, unread.digest);
    const bytes = upstream.bytesSent({ reference: unread.digest });
    assert.ok(bytes < unread.sizeBytes * 1.05, `${bytes} bytes received`);
  });
});

void describe("an upstream's response", () => {
  void it("passes none of its own headers to clients", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when(
      {},
      {
        headers: {
          "set-cookie": "evil=1",
          "x-evil": "1",
          "cache-control": "max-age=1",
          "content-disposition": "attachment; filename=evil",
          server: "evil",
          "oci-namespace": "evil",
          warning: '299 - "evil"',
          link: '</v2/evil>; rel="next"',
        },
      },
    );
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    for (const answer of await pullImage(mirror, "a", "v")) {
      for (const [name, value] of answer.rawHeaders) {
        assert.doesNotMatch(`${name}: ${value}`, /evil|max-age/i);
      }
      assert.equal(answer.headers["x-content-type-options"], "nosniff");
    }
  });

  void it("is refused if it is encoded although identity was requested", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    upstream.when({ method: "GET" }, { gzip: true });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const manifest = await mirror.get("/v2/a/manifests/v");
    assert.deepEqual(
      [manifest.status, errorCode(manifest)],
      [502, "UNAVAILABLE"],
    );
    const blob = await mirror.get(`/v2/a/blobs/${IMAGE.config.digest}`);
    assert.notEqual(blob.end === "complete" && blob.status === 200, true);
    assert.equal(blob.headers["content-encoding"], undefined);
  });
});

void describe("a token endpoint", () => {
  for (const [name, fault] of [
    ["fails", { status: 500 }],
    [
      "answers a page of HTML",
      { body: "<html>", headers: { "content-type": "text/html" } },
    ],
    ["answers no token", { body: "{}" }],
    [
      "answers more than the maximum size of a token",
      { body: JSON.stringify({ token: "x".repeat(1_000_000) }) },
    ],
    ["is not there", { status: 404 }],
  ] as const) {
    void it(`that ${name} is a fault of the upstream, and cached tags are served stale`, async (test) => {
      const upstream = await ScriptedUpstream.start(test, {
        auth: { scheme: "bearer" },
      });
      upstream.content.addImage("a", IMAGE, "v");
      const mirror = await startMirror(test, [upstreamOf(upstream)]);
      await pullImage(mirror, "a", "v");
      upstream.when({ kind: "token" }, fault);
      upstream.tokens?.revoke();
      const cold = await mirror.get("/v2/b/manifests/v");
      assert.deepEqual([cold.status, errorCode(cold)], [502, "UNAVAILABLE"]);
      mirror.clock.advance(600_000);
      const stale = await mirror.get("/v2/a/manifests/v");
      assert.deepEqual(
        [stale.status, stale.sha256],
        [200, IMAGE.manifest.digest],
      );
      assert.match(stale.headers["warning"] ?? "", /^299 /);
    });
  }
});

void describe("logs and metrics", () => {
  void it("contain no password, token or signed URL", async (test) => {
    const password = "canary-password";
    const upstream = await ScriptedUpstream.start(test, {
      auth: { scheme: "bearer", users: { "canary-user": password } },
      redirectBlobs: {},
    });
    upstream.content.addImage("a", IMAGE, "v");
    const credentials = [
      { username: "canary-user", password: new Secret(password) },
    ];
    const mirror = await startMirror(test, [
      upstreamOf(upstream, { credentials }),
    ]);
    await pullImage(mirror, "a", "v");
    upstream.expireSignatures();
    upstream.when({ kind: "cdn" }, { status: 403 });
    const broken = seededBlob("signed", 1_000);
    upstream.content.addBlob("a", broken);
    await mirror.get(`/v2/a/blobs/${broken.digest}`);
    upstream.when({ kind: "cdn" }, { raw: "" });
    mirror.clock.advance(600_000);
    await mirror.get("/v2/a/manifests/v?token=canary-query");
    const bearer = upstream
      .requests({ kind: "manifest" })
      .map(({ headers }) => headers["authorization"]?.split(" ")[1])
      .find((token) => token !== undefined);
    assert.ok(bearer);
    const output = JSON.stringify(mirror.log) + (await mirror.metrics());
    for (const secret of ["canary", "signature=", bearer, "Basic "]) {
      assert.ok(!output.includes(secret), secret);
    }
  });

  void it("have a constant number of series for any requests", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.content.addImage("a", IMAGE, "v");
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    const series = async (from: number): Promise<number> => {
      for (let i = from; i < from + 40; i++) {
        const headers = { "User-Agent": `agent ${i}` };
        await mirror.get(`/v2/random${i}/manifests/tag${i}`, headers);
        await mirror.get(
          `/v2/random${i}/blobs/sha256:${String(i).padStart(64, "0")}`,
        );
        await mirror.get(`/v2/a/manifests/v?ns=ns${i}`, headers);
        await mirror.get(`/path${i}`, headers);
        await mirror.start("/v2/", { method: "PROPFIND" }).response;
      }
      // Node's own series depend on its activity.
      return (await mirror.metrics())
        .split("\n")
        .filter((line) => line.startsWith("entrepot_")).length;
    };
    assert.equal(await series(0), await series(100));
    // Methods are labelled from a closed list.
    assert.doesNotMatch(await mirror.metrics(), /PROPFIND|random|agent/);
    const other =
      'entrepot_http_requests_total{method="OTHER",kind="ping",status="4xx"}';
    assert.equal(await mirror.metric(other), 80);
  });
});
