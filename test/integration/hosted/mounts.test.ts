import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { UpstreamConfig } from "../../../src/config/config.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { buildImage } from "../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../support/mirror-harness.ts";
import { PushClient } from "../../support/push-client.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { seededBytes } from "../../support/seeded-bytes.ts";

const BYTES = Buffer.from("a layer of another team");
const DIGEST = digestOf(BYTES);
const ADMIN = { Authorization: basic("admin", "secret") };
const DEV = { Authorization: basic("dev", "secret") };

/** A mirror of a registry of which one base image was pulled. */
async function withBase(
  test: AfterTest,
  overrides: Partial<UpstreamConfig>,
  options: Parameters<typeof startMirror>[2] = {},
) {
  const upstream = await ScriptedUpstream.start(test);
  const image = buildImage({ seed: "base", layers: [300_000] });
  upstream.content.addImage("library/base", image, "1");
  const hub = (more: Partial<UpstreamConfig> = {}) =>
    upstreamOf(upstream, { name: "docker.io", libraryPrefix: true, ...more });
  const mirror = await startMirror(test, [hub(overrides)], {
    ...options,
    config: { hosted: [hostedConfig()], ...options.config },
  });
  const layer = image.layers[0]?.digest ?? DIGEST;
  const client = new PushClient(test, mirror.port);
  const pull = async (headers = {}) => {
    const path = `/v2/docker.io/library/base/blobs/${layer}`;
    assert.equal((await mirror.get(path, headers)).status, 200);
    await mirror.settled();
  };
  const mount = async (
    to: string,
    digest: Digest,
    from: string | undefined,
    headers = {},
  ): Promise<number> => {
    const query = from === undefined ? "" : `&from=${from}`;
    const path = `/v2/${to}/blobs/uploads/?mount=${digest}${query}`;
    return (await client.send("POST", path, { headers })).status;
  };
  return { mirror, client, hub, layer, pull, mount };
}

void describe("a mount", () => {
  void it("takes only what the client may pull", async (test) => {
    const htpasswdFile = await writeHtpasswd(test, {
      admin: "secret",
      dev: "secret",
    });
    const access = accessConfig({
      htpasswdFile,
      anonymous: "none",
      rules: [
        { who: ["admin"], repositories: ["**"], actions: ["push"] },
        { who: ["dev"], repositories: ["local/dev/**"], actions: ["push"] },
      ],
    });
    const { client, layer, pull, mount } = await withBase(test, {}, { access });
    await pull(ADMIN);
    const started = await client.send(
      "POST",
      "/v2/local/secret/blobs/uploads/",
      {
        headers: ADMIN,
      },
    );
    const location = started.headers["location"] ?? "";
    const done = await client.finish(location, DIGEST, {
      body: BYTES,
      headers: ADMIN,
    });
    assert.equal(done.status, 201, done.text);
    for (const from of ["local/secret", undefined]) {
      assert.equal(await mount("local/dev/app", DIGEST, from, DEV), 202);
    }
    for (const from of ["docker.io/library/base", undefined]) {
      assert.equal(await mount("local/dev/app", layer, from, DEV), 202);
    }
    assert.equal(await mount("local/dev/app", DIGEST, undefined, ADMIN), 201);
    // It may be pulled from the developers' own repository now.
    assert.equal(await mount("local/dev/two", DIGEST, undefined, DEV), 201);
    assert.equal(await mount("local/secret", DIGEST, undefined, DEV), 403);
  });

  void it("takes nothing that the upstream's patterns exclude", async (test) => {
    const { mirror, hub, layer, pull, mount } = await withBase(test, {});
    await pull();
    assert.equal(await mount("local/one", layer, "docker.io/base"), 201);
    await mirror.reload({ upstreams: [hub({ deny: ["library/base"] })] });
    assert.equal(await mount("local/two", layer, "docker.io/base"), 202);
    // From the hosted repository that has it already.
    assert.equal(await mount("local/two", layer, "local/one"), 201);
  });

  void it("counts against the quota of the registry, once", async (test) => {
    const hosted = [hostedConfig({ quotaBytes: 300_010 })];
    const { client, layer, pull, mount } = await withBase(
      test,
      {},
      { config: { hosted } },
    );
    await pull();
    assert.equal(await mount("local/one", layer, undefined), 201);
    assert.equal(await mount("local/two", layer, undefined), 201);
    const location = await client.begin("local/one");
    const over = await client.finish(location, DIGEST, { body: BYTES });
    assert.equal(over.status, 403);
    assert.equal(over.code, "DENIED");
  });

  void it("protects the blob from eviction", async (test) => {
    const { mirror, client, layer, pull, mount } = await withBase(
      test,
      {},
      { eviction: { maxSize: { bytes: 500_000 } } },
    );
    await pull();
    assert.equal(await mount("local/one", layer, "docker.io/base"), 201);
    const big = seededBytes("big", 400_000).read(0, 400_000);
    const pushed = await client.push("local/one", digestOf(big), big);
    assert.equal(pushed.status, 201, pushed.text);
    for (const digest of [layer, digestOf(big)]) {
      const path = `/v2/local/one/blobs/${digest}`;
      assert.equal((await mirror.get(path)).status, 200);
    }
  });
});

void describe("an upload into a full cache", () => {
  void it("evicts mirrored images, and nothing that is hosted", async (test) => {
    const { mirror, client } = await withBase(
      test,
      {},
      { eviction: { maxSize: { bytes: 600_000 } } },
    );
    const image = "/v2/docker.io/library/base/manifests/1";
    const manifest = await mirror.get(image);
    assert.equal(manifest.status, 200);
    const parsed = JSON.parse(manifest.body.toString()) as {
      layers: { digest: string }[];
    };
    for (const { digest } of parsed.layers) {
      await mirror.get(`/v2/docker.io/library/base/blobs/${digest}`);
    }
    await mirror.settled();
    assert((await mirror.metric('entrepot_storage_objects{kind="tag"}')) > 0);
    // An image that was pulled just now is not evicted.
    mirror.clock.advance(3_600_000);
    const blobs = ["one", "two"].map((seed) =>
      seededBytes(seed, 280_000).read(0, 280_000),
    );
    for (const bytes of blobs) {
      const pushed = await client.push("local/app", digestOf(bytes), bytes);
      assert.equal(pushed.status, 201, pushed.text);
    }
    for (const bytes of blobs) {
      const path = `/v2/local/app/blobs/${digestOf(bytes)}`;
      assert.deepEqual((await mirror.get(path)).body, bytes);
    }
    assert.equal(
      await mirror.metric('entrepot_evicted_images_total{reason="size"}'),
      1,
    );
  });
});
