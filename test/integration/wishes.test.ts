import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Wish } from "../../src/images/wishes.ts";
import { accessConfig } from "../support/access.ts";
import { buildImage } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";

const app = buildImage({ seed: "wished", layers: [2_000] });
const absentDigest = buildImage({ seed: "absent", layers: [1] }).manifest
  .digest;

async function wishes(mirror: TestMirror) {
  const { status, body } = await mirror.operate("GET", "/wishes");
  assert.equal(status, 200);
  const { items } = body as { readonly items: readonly Wish[] };
  return items.map(({ ref, reason, count }) => `${ref} ${reason} ${count}`);
}

/** Asks for a manifest as an engine does. */
async function ask(mirror: TestMirror, name: string, reference: string) {
  const path = `/v2/${name}/manifests/${reference}`;
  await mirror.head(path);
  return (await mirror.get(path)).status;
}

void describe("wishes", () => {
  void it("are manifests that are offline, denied or absent, until they are stored", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const other = await ScriptedUpstream.start(test);
    upstream.content.addImage("library/app", app, "1");
    const upstreams = [
      upstreamOf(upstream, { deny: ["secret/**"] }),
      upstreamOf(other, { name: "other.example", isDefault: false }),
    ];
    const mirror = await startMirror(test, upstreams);
    assert.equal(await ask(mirror, "library/app", "2"), 404);
    assert.equal(await ask(mirror, "library/app", absentDigest), 404);
    assert.equal(await ask(mirror, "secret/app", "1"), 404);
    assert.equal(await ask(mirror, "other.example/team/app", "1"), 404);
    await mirror.get(`/v2/library/app/blobs/${absentDigest}`);
    await mirror.get("/v2/library/nothing/tags/list");
    await mirror.get("/v2/library/app/manifests/-bad");
    await mirror.start("/v2/library/app/manifests/9", { method: "DELETE" })
      .response;
    const seen = [
      "other.example/team/app:1 absent 1",
      "registry.example/library/app:2 absent 1",
      `registry.example/library/app@${absentDigest} absent 1`,
      "registry.example/secret/app:1 denied 1",
    ];
    assert.deepEqual(await wishes(mirror), seen);
    await mirror.restart({ offline: true });
    assert.deepEqual(await wishes(mirror), seen);
    assert.equal(await ask(mirror, "library/app", "1"), 404);
    mirror.clock.advance(60_000);
    assert.equal(await ask(mirror, "library/app", "2"), 404);
    assert.deepEqual(await wishes(mirror), [
      "other.example/team/app:1 absent 1",
      "registry.example/library/app:1 offline 1",
      "registry.example/library/app:2 offline 2",
      ...seen.slice(2),
    ]);
    await mirror.restart({ offline: false });
    await pullImage(mirror, "library/app", "1");
    assert.ok(
      (await wishes(mirror)).every((line) => !line.includes("library/app:1")),
    );
  });

  void it("are not what an unreachable upstream could not answer", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.when({ kind: "manifest" }, { status: 503 });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    assert.ok((await ask(mirror, "library/app", "1")) >= 500);
    assert.deepEqual(await wishes(mirror), []);
  });

  void it("are not the names of a client without the right to pull", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const mirror = await startMirror(test, [upstreamOf(upstream)], {
      access: accessConfig({
        rules: [
          {
            who: ["*"],
            repositories: ["registry.example/public/**"],
            actions: ["pull"],
          },
        ],
      }),
    });
    assert.equal(await ask(mirror, "private/app", "1"), 404);
    assert.equal(await ask(mirror, "public/app", "1"), 404);
    assert.deepEqual(await wishes(mirror), [
      "registry.example/public/app:1 absent 1",
    ]);
  });

  void it("are denied if the upstream refuses them", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    upstream.when({ kind: "manifest" }, { status: 403 });
    const mirror = await startMirror(test, [upstreamOf(upstream)]);
    assert.equal(await ask(mirror, "library/app", "1"), 404);
    assert.deepEqual(await wishes(mirror), [
      "registry.example/library/app:1 denied 1",
    ]);
  });
});
