import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import { it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { VERSION } from "../../../src/telemetry/version.ts";
import { AMD64, ARM64, buildMultiArch } from "../../support/image-builder.ts";
import { readParts } from "../../support/seeded-bytes.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  repositoryName,
  SIGNAL,
  startUpstreamClient,
  tagReference,
} from "../../support/upstream-harness.ts";

const BUSYBOX = repositoryName("library/busybox");
const INDEX = buildMultiArch({
  seed: "pull",
  platforms: [AMD64, ARM64],
  layers: [10_000, 200_000],
});

void it("pulls with one challenge, one token, and one request for each manifest and blob", async (t) => {
  const upstream = await ScriptedUpstream.start(t, {
    auth: { scheme: "bearer", realm: "origin" },
    redirectBlobs: {},
  });
  upstream.content.addIndex(ALPINE, INDEX, "3.20");
  const { client, observer } = startUpstreamClient(t, [upstream.origin]);

  const head = await client.headManifest(ALPINE, tagReference("3.20"), SIGNAL);
  assert.equal(head.digest, INDEX.manifest.digest);
  assert.equal(head.sizeBytes, INDEX.manifest.sizeBytes);
  assert.equal(head.mediaType, INDEX.manifest.mediaType);

  const [image] = INDEX.images;
  assert.ok(image);
  for (const { digest, bytes, mediaType } of [INDEX.manifest, image.manifest]) {
    const got = await client.getManifest(
      ALPINE,
      { kind: "digest", digest },
      SIGNAL,
    );
    assert.deepEqual(got.bytes, bytes);
    assert.equal(got.mediaType, mediaType);
    assert.equal(got.digestHeader, digest);
  }
  let blobBytes = 0;
  for (const blob of image.blobs) {
    const opened = await client.openBlob(ALPINE, blob.digest, {
      signal: SIGNAL,
    });
    assert.equal(opened.status, 200);
    assert.equal(opened.offset, 0);
    assert.equal(opened.sizeBytes, blob.sizeBytes);
    assert.equal(opened.endpoint, upstream.origin);
    const bytes = await buffer(opened.body);
    assert.equal(digestOf(bytes), blob.digest);
    blobBytes += bytes.length;
  }

  // One 401, one token, HEAD and two GETs of manifests, the blobs.
  const atCdn = upstream.count({ listener: "cdn" });
  assert.equal(atCdn, image.blobs.length);
  assert.equal(upstream.count() - atCdn, image.blobs.length + 5);
  assert.equal(upstream.tokens?.issuedCount, 1);
  const manifestBytes = INDEX.manifest.sizeBytes + image.manifest.sizeBytes;
  assert.ok(observer.receivedBytes >= blobBytes + manifestBytes);
  assert.equal(observer.responses.length, upstream.count());
  assert.deepEqual(observer.faults, []);
});

void it("obtains a token before the first request of the next repository", async (t) => {
  const upstream = await ScriptedUpstream.start(t, {
    auth: { scheme: "bearer" },
  });
  upstream.content.addIndex(ALPINE, INDEX, "1");
  upstream.content.addIndex(BUSYBOX, INDEX, "1");
  const { client } = startUpstreamClient(t, [upstream.origin]);

  await client.headManifest(ALPINE, tagReference("1"), SIGNAL);
  await client.headManifest(BUSYBOX, tagReference("1"), SIGNAL);
  assert.equal(upstream.count({ status: 401 }), 1);
  assert.deepEqual(
    upstream
      .requests({ kind: "token" })
      .map(({ query }) => query.getAll("scope")),
    [["repository:library/alpine:pull"], ["repository:library/busybox:pull"]],
  );
});

void it("sends credentials to the realm and to a Basic endpoint, and nothing else of a request", async (t) => {
  const users = { acme: "pässword" };
  const bearer = await ScriptedUpstream.start(t, {
    auth: { scheme: "bearer", users, anonymous: false },
  });
  const basic = await ScriptedUpstream.start(t, {
    auth: { scheme: "basic", users },
  });
  const credentials = [{ username: "acme", password: new Secret("pässword") }];
  for (const upstream of [bearer, basic]) {
    upstream.content.addIndex(ALPINE, INDEX, "1");
    const { client } = startUpstreamClient(t, [upstream.origin], {
      credentials,
    });
    assert.ok(client.hasCredentials);
    await client.headManifest(ALPINE, tagReference("1"), SIGNAL);
    await client.headManifest(ALPINE, tagReference("1"), SIGNAL);
    assert.equal(upstream.count({ status: 401 }), 1);
  }
  const [token] = bearer.requests({ kind: "token" });
  assert.equal(token?.query.get("account"), "acme");
  const asked = basic.requests({ status: 200 })[0];
  assert.deepEqual(
    Object.keys(asked?.headers ?? {}).filter((name) => name !== "connection"),
    ["host", "accept", "accept-encoding", "user-agent", "via", "authorization"],
  );
  assert.equal(asked?.headers["accept-encoding"], "identity");
  assert.equal(asked?.headers["user-agent"], `entrepot/${VERSION}`);
  assert.equal(asked?.headers["via"], "1.1 entrepot-test");
});

void it("prefixes the endpoint's path to repositories, also in the token's scope", async (t) => {
  const upstream = await ScriptedUpstream.start(t, {
    auth: { scheme: "bearer" },
  });
  upstream.content.addIndex("hub/library/alpine", INDEX, "1");
  upstream.content.addIndex("hub/library/busybox", INDEX, "1");
  const { client } = startUpstreamClient(t, [`${upstream.origin}/hub`]);
  await client.headManifest(ALPINE, tagReference("1"), SIGNAL);
  await client.headManifest(BUSYBOX, tagReference("1"), SIGNAL);
  assert.equal(upstream.count({ status: 401 }), 1);
  assert.equal(upstream.tokens?.issuedCount, 2);
});

void it("opens a blob in the middle and returns its start", async (t) => {
  const upstream = await ScriptedUpstream.start(t, { redirectBlobs: {} });
  upstream.content.addIndex(ALPINE, INDEX, "1");
  const [, , blob] = INDEX.images[0]?.blobs ?? [];
  assert.ok(blob);
  const whole = Buffer.concat([...readParts(blob)]);
  const { client } = startUpstreamClient(t, [upstream.origin]);

  const rest = await client.openBlob(ALPINE, blob.digest, {
    offset: 70_000,
    signal: SIGNAL,
  });
  assert.equal(rest.status, 206);
  assert.equal(rest.offset, 70_000);
  assert.equal(rest.sizeBytes, blob.sizeBytes);
  assert.deepEqual(await buffer(rest.body), whole.subarray(70_000));
  const part = await client.openBlob(ALPINE, blob.digest, {
    offset: 0,
    lastByte: 9,
    signal: SIGNAL,
  });
  assert.deepEqual(await buffer(part.body), whole.subarray(0, 10));
  assert.deepEqual(
    upstream
      .requests({ listener: "cdn" })
      .map(({ headers }) => headers["range"]),
    ["bytes=70000-", "bytes=0-9"],
  );
});
