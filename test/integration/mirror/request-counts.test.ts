import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { buildImage, buildMultiArch } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";
import { FakeClock } from "../../support/fake-clock.ts";

const IMAGE = buildMultiArch({
  seed: "counts",
  layers: [1_000, 70_000, 3_000],
});
const BLOBS = 4;
const TAG_TTL_MS = 600_000;

async function setUp(
  test: AfterTest,
  expiresInSeconds: number,
): Promise<{
  upstream: ScriptedUpstream;
  mirror: TestMirror;
  clock: FakeClock;
}> {
  const clock = new FakeClock();
  const upstream = await ScriptedUpstream.start(test, {
    auth: { scheme: "bearer", realm: "port", expiresInSeconds },
    redirectBlobs: {},
    clock,
  });
  upstream.content.addIndex("library/app", IMAGE, "1");
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream, { tokenRealms: ["127.0.0.1"] })],
    { clock },
  );
  return { upstream, mirror, clock };
}

/** Redirect targets are not part of the registry. */
const NOT_CDN = {
  where: ({ listener }: { listener: string }) => listener !== "cdn",
};

void describe("the upstream requests of a pull", () => {
  void it("are at most five besides the blobs of a cold image, including tokens", async (test) => {
    const { upstream, mirror } = await setUp(test, 300);
    await pullImage(mirror, "library/app", "1");
    assert.ok(
      upstream.count(NOT_CDN) <= BLOBS + 5,
      `${upstream.count(NOT_CDN)} requests`,
    );
    assert.equal(upstream.count({ kind: "token" }), 1);
    assert.equal(upstream.count({ kind: "blob", method: "HEAD" }), 0);
    assert.equal(upstream.count({ kind: "blob", method: "GET" }), BLOBS);
  });

  void it("are the manifest, the config and the layers for a cold image of one platform", async (test) => {
    const { upstream, mirror } = await setUp(test, 300);
    const image = buildImage({ seed: "one platform", layers: [1_000, 2_000] });
    for (const tag of ["1", "2"]) {
      upstream.content.addImage(`library/single${tag}`, image, tag);
      upstream.forgetRequests();
      await pullImage(mirror, `library/single${tag}`, tag);
      const counted = upstream.requests({
        where: ({ kind, listener, status = 0 }) =>
          kind !== "token" &&
          listener === "registry" &&
          status !== 401 &&
          (status < 300 || status > 399),
      });
      // Blobs are redirected here; a registry without redirects would count one GET for each.
      const blobs = upstream.count({ listener: "cdn", method: "GET" });
      const requests = counted.length + blobs;
      assert.ok(requests <= image.layers.length + 3, `${requests} requests`);
      assert.equal(upstream.count({ method: "HEAD", kind: "manifest" }), 0);
    }
  });

  void it("are none for a fresh tag", async (test) => {
    const { upstream, mirror, clock } = await setUp(test, 300);
    await pullImage(mirror, "library/app", "1");
    upstream.forgetRequests();
    clock.advance(TAG_TTL_MS - 1);
    await pullImage(mirror, "library/app", "1");
    assert.equal(upstream.count(), 0);
  });

  void it("are one HEAD for an expired tag", async (test) => {
    const { upstream, mirror, clock } = await setUp(test, 3_600);
    await pullImage(mirror, "library/app", "1");
    upstream.forgetRequests();
    clock.advance(TAG_TTL_MS);
    await pullImage(mirror, "library/app", "1");
    assert.deepEqual(
      upstream.requests().map(({ kind, method }) => [kind, method]),
      [["manifest", "HEAD"]],
    );
  });

  void it("are one token and one HEAD for an expired tag and an expired token", async (test) => {
    const { upstream, mirror, clock } = await setUp(test, 60);
    await pullImage(mirror, "library/app", "1");
    upstream.forgetRequests();
    clock.advance(TAG_TTL_MS);
    await pullImage(mirror, "library/app", "1");
    assert.deepEqual(
      upstream.requests().map(({ kind, method }) => [kind, method]),
      [
        ["token", "GET"],
        ["manifest", "HEAD"],
      ],
    );
  });

  void it("are none for a fresh tag after a restart of the mirror", async (test) => {
    const { upstream, mirror } = await setUp(test, 300);
    await pullImage(mirror, "library/app", "1");
    upstream.forgetRequests();
    await mirror.restart();
    await pullImage(mirror, "library/app", "1");
    assert.equal(upstream.count(), 0);
  });
});
