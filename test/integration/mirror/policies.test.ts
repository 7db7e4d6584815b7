import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { buildImage } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  errorCode,
  errorDetail,
  startMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";

const IMAGE = buildImage({ seed: "policies" });
const BLOB = IMAGE.blobs[0] ?? assert.fail();

void describe("content that allow and deny exclude", () => {
  void it("is 404 with the reason for every request, without an upstream request", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const mirror = await startMirror(t, [
      upstreamOf(upstream, { allow: ["library/*"], deny: ["**:latest"] }),
    ]);
    const { digest } = IMAGE.manifest;
    for (const [path, code] of [
      ["/v2/team/app/manifests/1", "MANIFEST_UNKNOWN"],
      [`/v2/team/app/manifests/${digest}`, "MANIFEST_UNKNOWN"],
      [`/v2/team/app/blobs/${BLOB.digest}`, "BLOB_UNKNOWN"],
      ["/v2/team/app/tags/list", "NAME_UNKNOWN"],
      [`/v2/team/app/referrers/${digest}`, "NAME_UNKNOWN"],
      ["/v2/library/app/manifests/latest", "MANIFEST_UNKNOWN"],
    ] as const) {
      const got = await mirror.get(path);
      assert.deepEqual([got.status, errorCode(got)], [404, code], path);
      assert.match(
        errorDetail(got) ?? "",
        /not allowed by the configuration of this mirror/,
      );
      assert.equal(cacheStatusOf(got), "hit; detail=negative");
      assert.equal((await mirror.head(path)).status, 404);
    }
    assert.equal(upstream.registry.connectionCount, 0);
  });

  void it("does not affect other content or another upstream", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.content.addImage("library/app", IMAGE, "1");
    upstream.content.addImage("team/app", IMAGE, "latest");
    const mirror = await startMirror(t, [
      upstreamOf(upstream, { allow: ["library/*:1"] }),
      upstreamOf(upstream, { name: "other.example", isDefault: false }),
    ]);
    await pullImage(mirror, "library/app", "1");
    await pullImage(mirror, "other.example/team/app", "latest");
  });

  void it("is 404 after the next start even if it is cached", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.content.addImage("team/app", IMAGE, "1");
    const mirror = await startMirror(t, [upstreamOf(upstream)]);
    await pullImage(mirror, "team/app", "1");
    await mirror.restart({
      upstreams: [upstreamOf(upstream, { deny: ["team/**"] })],
    });
    for (const path of [
      "/v2/team/app/manifests/1",
      `/v2/team/app/manifests/${IMAGE.manifest.digest}`,
      `/v2/team/app/blobs/${BLOB.digest}`,
    ]) {
      assert.equal((await mirror.get(path)).status, 404, path);
    }
  });
});
