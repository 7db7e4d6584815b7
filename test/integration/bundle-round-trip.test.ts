import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, it } from "node:test";
import type { ExportBody } from "../../src/http/operator/api-export.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { AfterTest } from "../support/after-test.ts";
import { blobsOf, readBundle } from "../support/bundles.ts";
import { hostedConfig } from "../support/hosted-config.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
  type TestImage,
} from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { upstreamConfig } from "../support/upstream-harness.ts";

const APP = "registry.example/library/app";
const first = buildImage({ seed: "first", layers: [5_000, 60_000] });
const second = buildImage({ seed: "second", layers: [...first.layers, 700] });
const docker = buildImage({ seed: "docker", layers: [900], format: "docker" });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });
const { digest, mediaType, sizeBytes } = first.manifest;
const signature = buildArtifact({
  seed: "signature",
  artifactType: "application/vnd.example.signature",
  subject: { digest, mediaType, sizeBytes },
});

/** A connected mirror that has pulled everything, and has a hosted image. */
async function connected(test: AfterTest): Promise<TestMirror> {
  const upstream = await ScriptedUpstream.start(test);
  const { content } = upstream;
  content.addImage("library/app", first, "1");
  content.addImage("library/app", second, "2");
  content.addImage("library/docker", docker, "1");
  content.addIndex("library/app", multi, "multi");
  content.addImage("library/app", signature);
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    config: { hosted: [hostedConfig()] },
  });
  for (const tag of ["1", "2", "multi", signature.manifest.digest]) {
    await pullImage(mirror, "library/app", tag);
  }
  await pullImage(mirror, "library/docker", "1");
  await mirror.get(`/v2/library/app/referrers/${digest}`);
  await mirror.operate("POST", "/tags", {
    source: `${APP}:1`,
    target: "local/team/app:9",
  });
  return mirror;
}

function offline(test: AfterTest): Promise<TestMirror> {
  return startMirror(test, [upstreamConfig([])], {
    offline: true,
    config: { hosted: [hostedConfig()] },
  });
}

async function exported(mirror: TestMirror, body: ExportBody): Promise<Buffer> {
  const response = await fetch(`${mirror.operatorOrigin}/api/v1/export`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  assert.equal(response.status, 200, bytes.toString());
  return bytes;
}

async function imported(
  mirror: TestMirror,
  bundle: Buffer,
): Promise<{ readonly status: number; readonly text: string }> {
  const response = await fetch(`${mirror.operatorOrigin}/api/v1/import`, {
    method: "POST",
    body: bundle,
    headers: { "content-type": "application/x-tar" },
  });
  return { status: response.status, text: await response.text() };
}

async function assertPulls(
  mirror: TestMirror,
  names: Readonly<Record<string, TestImage | undefined>>,
): Promise<void> {
  for (const [name, image] of Object.entries(names)) {
    const [, repository = "", tag = ""] = /^([^:]+):(.*)$/.exec(name) ?? [];
    const answers = await pullImage(mirror, repository, tag);
    const digests = answers.map(({ sha256 }) => sha256);
    for (const blob of image?.blobs ?? [])
      assert(digests.includes(blob.digest));
  }
}

const EVERYTHING = {
  refs: [`${APP}:1`, `${APP}:2`, `${APP}:multi`, "**/docker", "local/**"],
};

void describe("a bundle from one mirror to another", () => {
  void it("is pulled there, and exported again as the same bytes", async (test) => {
    const from = await connected(test);
    const bundle = await exported(from, EVERYTHING);
    const to = await offline(test);
    assert.deepEqual((await imported(to, bundle)).status, 200);
    await assertPulls(to, {
      "library/app:1": first,
      "library/app:2": second,
      "library/app:multi": multi.images[0],
      "library/docker:1": docker,
      "local/team/app:9": first,
    });
    const again = await exported(to, EVERYTHING);
    assert(again.equals(bundle));
    // Another import changes nothing.
    assert.deepEqual((await imported(to, bundle)).status, 200);
    assert((await exported(to, EVERYTHING)).equals(bundle));
  });

  void it("has the referrers of its images there", async (test) => {
    const from = await connected(test);
    const body = { refs: [`${APP}:1`, "local/**"], withReferrers: true };
    const bundle = await exported(from, body);
    const to = await offline(test);
    assert.deepEqual((await imported(to, bundle)).status, 200);
    const list = await to.get(`/v2/library/app/referrers/${digest}`);
    assert.match(list.body.toString(), /vnd\.example\.signature/);
    await assertPulls(to, {
      [`library/app:${signature.manifest.digest}`]: signature,
    });
    const again = await exported(to, body);
    const contents = await Promise.all(
      [bundle, again].map(async (bytes) =>
        blobsOf(await readBundle(Readable.from([bytes]))),
      ),
    );
    assert.deepEqual(contents[0], contents[1]);
  });

  void it("continues an earlier one, and is refused by name without it", async (test) => {
    const from = await connected(test);
    const earlier = await exported(from, { refs: [`${APP}:1`] });
    const { members, ...read } = await readBundle(Readable.from([earlier]));
    const indexDigest = digestOf(members.get("index.json") ?? Buffer.of());
    const since = {
      indexDigest,
      manifests: [{ digest, registry: "registry.example" }],
    };
    const later = await exported(from, { ...EVERYTHING, since });
    const held = blobsOf(read);
    const added = blobsOf(await readBundle(Readable.from([later])));
    // The hosted image needs them: they are of another registry.
    assert(held.every((blob) => added.includes(blob)));
    const mirrored = { refs: [`${APP}:*`] };
    const onlyNew = await exported(from, { ...mirrored, since });
    const few = blobsOf(await readBundle(Readable.from([onlyNew])));
    assert(held.every((blob) => !few.includes(blob)));

    const empty = await offline(test);
    const refused = await imported(empty, onlyNew);
    assert(refused.status >= 400);
    assert(refused.text.includes(indexDigest), refused.text);
    const left = await readdir(join(empty.root, "blobs/sha256")).catch(
      () => [],
    );
    assert.deepEqual(left, []);

    const to = await offline(test);
    for (const bundle of [earlier, onlyNew, later]) {
      assert.equal((await imported(to, bundle)).status, 200);
    }
    await assertPulls(to, {
      "library/app:1": first,
      "library/app:2": second,
      "local/team/app:9": first,
    });
    const whole = await exported(from, EVERYTHING);
    assert((await exported(to, EVERYTHING)).equals(whole));
  });
});
