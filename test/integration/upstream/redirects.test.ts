import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { buildImage } from "../../support/image-builder.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import {
  ALPINE,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "redirects", layers: [5_000] });
const LAYER = IMAGE.blobs[1] ?? assert.fail("no layer");
const CREDENTIALS = [
  { username: "acme", password: new Secret("canary-password") },
];
const USERS = { acme: "canary-password" };

type Options = NonNullable<Parameters<typeof ScriptedUpstream.start>[1]>;

async function startRegistry(
  t: AfterTest,
  options: Options = {},
): Promise<ScriptedUpstream> {
  const upstream = await ScriptedUpstream.start(t, options);
  upstream.content.addImage(ALPINE, IMAGE, "1");
  return upstream;
}

/** Redirects the blobs of a registry. */
function redirectBlobs(upstream: ScriptedUpstream, location: string): void {
  upstream.when({ kind: "blob" }, { status: 307, headers: { location } });
}

void describe("a redirect", () => {
  for (const status of [301, 302, 303, 307, 308] as const) {
    void it(`with ${status} is followed without Authorization, for HEAD and GET`, async (t) => {
      const upstream = await startRegistry(t, {
        auth: { scheme: "basic", users: USERS },
        redirectBlobs: { status },
      });
      const { client } = startUpstreamClient(t, [upstream.origin], {
        credentials: CREDENTIALS,
      });
      const { body } = await client.openBlob(ALPINE, LAYER.digest, {
        signal: SIGNAL,
      });
      assert.equal(digestOf(await buffer(body)), LAYER.digest);
      const head = await client.headBlob(ALPINE, LAYER.digest, SIGNAL);
      assert.equal(head.sizeBytes, LAYER.sizeBytes);
      const atCdn = upstream.requests({ listener: "cdn" });
      assert.deepEqual(
        atCdn.map(({ method }) => method),
        ["GET", "HEAD"],
      );
      // The scripted storage answers 400 to a request with Authorization, as S3 does.
      for (const { headers } of atCdn) {
        assert.equal(headers["authorization"], undefined);
      }
    });
  }

  void it("to another port of the same host gets no Authorization", async (t) => {
    const upstream = await startRegistry(t, {
      auth: { scheme: "basic", users: USERS },
    });
    const trap = await startRegistry(t);
    redirectBlobs(
      upstream,
      `${trap.origin}/v2/${ALPINE}/blobs/${LAYER.digest}`,
    );
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials: CREDENTIALS,
    });
    const { body } = await client.openBlob(ALPINE, LAYER.digest, {
      signal: SIGNAL,
    });
    await buffer(body);
    const [seen] = trap.requests();
    assert.equal(seen?.headers["authorization"], undefined);
    assert.equal(trap.count(), 1);
  });

  void it("within the endpoint's own origin keeps Authorization; one back from another origin does not", async (t) => {
    const upstream = await startRegistry(t, {
      auth: { scheme: "basic", users: USERS },
    });
    const elsewhere = await startRegistry(t);
    upstream.when(
      { kind: "manifest", reference: "1" },
      {
        status: 307,
        headers: {
          location: `/v2/${ALPINE}/manifests/${IMAGE.manifest.digest}`,
        },
      },
    );
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials: CREDENTIALS,
    });
    const manifest = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(manifest.digestHeader, IMAGE.manifest.digest);

    redirectBlobs(upstream, `${elsewhere.origin}/v2/x/blobs/y`);
    redirectBlobs(elsewhere, `${upstream.origin}/v2/stolen/manifests/1`);
    upstream.forgetRequests();
    await upstreamErrorOf(
      client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
    );
    const [last] = upstream.requests({ repository: "stolen" });
    assert.ok(last);
    assert.equal(last.headers["authorization"], undefined);
  });

  void it("keeps the range", async (t) => {
    const upstream = await startRegistry(t, { redirectBlobs: {} });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const { body } = await client.openBlob(ALPINE, LAYER.digest, {
      offset: 4_990,
      signal: SIGNAL,
    });
    assert.equal((await buffer(body)).length, 10);
    assert.deepEqual(
      upstream.requests().map(({ headers }) => headers["range"]),
      ["bytes=4990-", "bytes=4990-"],
    );
  });

  void it("is requested again for each blob: signatures expire", async (t) => {
    const upstream = await startRegistry(t, { redirectBlobs: {} });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const open = async (): Promise<void> => {
      const { body } = await client.openBlob(ALPINE, LAYER.digest, {
        signal: SIGNAL,
      });
      await buffer(body);
    };
    await open();
    upstream.expireSignatures();
    await open();
    assert.equal(upstream.count({ kind: "blob" }), 2);
  });

  void it("is followed at most five times", async (t) => {
    const upstream = await startRegistry(t);
    const hops = (count: number): string =>
      `/v2/${ALPINE}/blobs/${LAYER.digest}${count === 0 ? "" : `?hops=${count}`}`;
    upstream.when(
      { kind: "blob", where: ({ query }) => query.has("hops") },
      (request) => ({
        status: 307,
        headers: { location: hops(Number(request.query.get("hops")) - 1) },
      }),
    );
    const { client } = startUpstreamClient(t, [upstream.origin]);
    upstream.when(
      { kind: "blob" },
      { status: 307, headers: { location: hops(4) } },
      { times: 1 },
    );
    const { body } = await client.openBlob(ALPINE, LAYER.digest, {
      signal: SIGNAL,
    });
    await buffer(body);
    assert.equal(upstream.count(), 6);

    upstream.forgetRequests();
    upstream.when(
      { kind: "blob" },
      { status: 307, headers: { location: hops(5) } },
      { times: 1 },
    );
    const error = await upstreamErrorOf(
      client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
    );
    assert.equal(error.kind, "bad-response");
    assert.equal(upstream.count(), 6);
  });

  for (const [name, location] of [
    ["in a circle", `/v2/${ALPINE}/blobs/${LAYER.digest}?sig=canary`],
    ["without Location", undefined],
    ["with a garbled Location", "https://[canary"],
    ["to a file", "file:///etc/passwd?canary"],
  ] as const) {
    void it(`${name} is refused, and its query is not reported`, async (t) => {
      const upstream = await startRegistry(t);
      upstream.when({ kind: "blob" }, { status: 307, headers: { location } });
      const { client, observer } = startUpstreamClient(t, [upstream.origin]);
      const error = await upstreamErrorOf(
        client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
      );
      assert.equal(error.kind, "bad-response");
      assert.doesNotMatch(JSON.stringify(observer.faults), /canary/);
      assert.ok(upstream.count() <= 6);
    });
  }

  void it("to storage that refuses its signature is not a refusal of the registry", async (t) => {
    const upstream = await startRegistry(t, { redirectBlobs: {} });
    upstream.when({ listener: "cdn" }, { status: 403 });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const error = await upstreamErrorOf(
      client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
    );
    assert.equal(error.kind, "bad-response");
    assert.equal(error.status, 403);
  });

  void it("of a HEAD that storage refuses is replaced by a GET", async (t) => {
    const upstream = await startRegistry(t, { redirectBlobs: {} });
    upstream.when({ listener: "cdn", method: "HEAD" }, { status: 403 });
    const { client } = startUpstreamClient(t, [upstream.origin]);
    const head = await client.headBlob(ALPINE, LAYER.digest, SIGNAL);
    assert.equal(head.sizeBytes, LAYER.sizeBytes);
    assert.equal(upstream.count({ listener: "cdn" }), 2);
  });

  void it("to a dead host leaves the endpoint up and delays only one request", async (t) => {
    const upstream = await startRegistry(t, { redirectBlobs: {} });
    await upstream.cdn?.stop();
    const { client, observer } = startUpstreamClient(t, [upstream.origin]);
    const kinds: string[] = [];
    for (let round = 0; round < 2; round++) {
      const error = await upstreamErrorOf(
        client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
      );
      kinds.push(error.kind);
      assert.doesNotMatch(error.message, /signature/);
    }
    assert.deepEqual(kinds, ["unreachable", "breaker-open"]);
    assert.equal(client.isDown(), false);
    await client.headManifest(ALPINE, TAG, SIGNAL);
    assert.deepEqual(observer.endpoints, []);
    assert.equal(
      observer.responses.filter(({ status }) => status === "error").length,
      1,
    );
  });
});

void describe("a challenge of a redirect's target", () => {
  void it("is answered without credentials, by a realm on its own origin", async (t) => {
    const upstream = await startRegistry(t, {
      auth: { scheme: "basic", users: USERS },
    });
    const target = await startRegistry(t, {
      auth: { scheme: "bearer", users: USERS },
    });
    upstream.when(
      { kind: "manifest" },
      {
        status: 307,
        headers: { location: `${target.origin}/v2/${ALPINE}/manifests/1` },
      },
    );
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials: CREDENTIALS,
    });
    const pulls = Array.from({ length: 20 }, () =>
      client.getManifest(ALPINE, TAG, SIGNAL),
    );
    for (const { bytes } of await Promise.all(pulls)) {
      assert.deepEqual(bytes, IMAGE.manifest.bytes);
    }
    const [token] = target.requests({ kind: "token" });
    assert.equal(target.count({ kind: "token" }), 1);
    assert.equal(token?.headers["authorization"], undefined);
    assert.equal(token?.query.has("account"), false);
    for (const { headers } of target.requests()) {
      assert.doesNotMatch(headers["authorization"] ?? "", /^Basic/);
    }
  });

  for (const realm of ["port", "host"] as const) {
    void it(`is answered neither by a realm on another ${realm}, nor by the endpoint's`, async (t) => {
      const upstream = await startRegistry(t);
      const target = await startRegistry(t, {
        auth: { scheme: "bearer", realm },
      });
      redirectBlobs(
        upstream,
        `${target.origin}/v2/${ALPINE}/blobs/${LAYER.digest}`,
      );
      const { client } = startUpstreamClient(t, [upstream.origin], {
        tokenRealms: ["127.0.0.1", "127.0.0.2"],
      });
      const error = await upstreamErrorOf(
        client.openBlob(ALPINE, LAYER.digest, { signal: SIGNAL }),
      );
      assert.equal(error.status, 401);
      assert.equal(target.tokenListener?.connectionCount, 0);
      assert.equal(target.count(), 1);
      assert.equal(upstream.count(), 1);
    });
  }
});
