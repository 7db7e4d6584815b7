import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Secret } from "../../../src/config/config.ts";
import {
  buildImage,
  descriptorJson,
  manifestOf,
  seededBlob,
} from "../../support/image-builder.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { startRegistryScene } from "../../support/registry-scene.ts";

const IMAGE = buildImage({ seed: "trap" });
const LAYER = IMAGE.blobs[1] ?? assert.fail();
const PASSWORD = "canary-password";
const TRAP = "trap.example";

/** A registry with credentials, and a public server to which its answers may lead. */
async function setUp(t: AfterTest, scheme: "basic" | "bearer") {
  const users = { acme: PASSWORD };
  const scene = await startRegistryScene(t, {
    name: "registry.corp",
    hosts: {},
    elsewhere: TRAP,
    script: {
      auth:
        scheme === "basic"
          ? { scheme, users }
          : { scheme, users, anonymous: false },
    },
    config: {
      credentials: [{ username: "acme", password: new Secret(PASSWORD) }],
    },
  });
  scene.upstream.content.addImage("team/app", IMAGE, "1");
  const dialled = (): number =>
    scene.proxy.requests.filter(({ host }) => host === `${TRAP}:443`).length;
  return { ...scene, dialled };
}

void describe("a hostile registry that tries to get credentials", () => {
  for (const scheme of ["basic", "bearer"] as const) {
    void it(`is not dialled as a realm, at the first challenge or later (${scheme})`, async (t) => {
      const { upstream, mirror, dialled } = await setUp(t, scheme);
      const trapped = {
        status: 401,
        headers: {
          "www-authenticate": `Bearer realm="https://${TRAP}/token",service="registry.corp"`,
        },
      };
      upstream.when({ kind: "manifest" }, trapped, { beforeAuth: true });
      assert.equal((await mirror.get("/v2/team/app/manifests/1")).status, 502);
      upstream.clearRules();
      mirror.clock.advance(300_000);
      assert.equal((await mirror.get("/v2/team/app/manifests/1")).status, 200);
      upstream.when({ kind: "blob" }, trapped, { beforeAuth: true });
      const blob = await mirror.get(`/v2/team/app/blobs/${LAYER.digest}`);
      assert.equal(blob.status, 502);
      assert.equal(dialled(), 0);
    });

    void it(`gets no credential as a redirect target or as the realm of its own challenge (${scheme})`, async (t) => {
      const { upstream, elsewhere, mirror, dialled } = await setUp(t, scheme);
      elsewhere.content.addImage("team/app", IMAGE, "1");
      upstream.when({ kind: "blob" }, ({ target }) => ({
        status: 307,
        headers: { location: `https://${TRAP}${target}` },
      }));
      elsewhere.when(
        { kind: "blob" },
        {
          status: 401,
          headers: {
            "www-authenticate": `Bearer realm="https://${TRAP}/token"`,
          },
        },
        { times: 1 },
      );
      elsewhere.when({ kind: "token" }, { status: 200, body: '{"token":"t"}' });
      elsewhere.when({ kind: "blob" }, ({ headers }) => {
        // The target gets only the token of its own realm.
        assert.equal(headers["authorization"], "Bearer t");
        return {};
      });
      const blob = await mirror.get(`/v2/team/app/blobs/${LAYER.digest}`);
      assert.equal(blob.sha256, LAYER.digest);
      assert.ok(dialled() >= 1);
      const [asked] = elsewhere.requests({ kind: "token" });
      assert.equal(asked?.headers["authorization"], undefined);
      assert.equal(asked?.query.has("account"), false);
      assert.doesNotMatch(JSON.stringify(elsewhere.requests()), /canary|acme/);
    });
  }

  void it("is not dialled for a Link header or a foreign layer", async (t) => {
    const { upstream, mirror, dialled } = await setUp(t, "basic");
    const link = { headers: { link: `<https://${TRAP}/v2/x>; rel="next"` } };
    upstream.when({ kind: "tags" }, link);
    upstream.when({ kind: "referrers" }, link);
    const foreign = seededBlob("trap/foreign", 100, {
      mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    });
    const manifest = manifestOf(
      {
        schemaVersion: 2,
        mediaType: IMAGE.manifest.mediaType,
        config: descriptorJson(IMAGE.config),
        layers: [
          { ...descriptorJson(foreign), urls: [`https://${TRAP}/layer`] },
        ],
      },
      IMAGE.manifest.mediaType,
    );
    upstream.content.addManifest("team/app", manifest, "foreign");
    assert.equal(
      (await mirror.get("/v2/team/app/manifests/foreign")).sha256,
      manifest.digest,
    );
    for (const [path, status] of [
      [`/v2/team/app/blobs/${foreign.digest}`, 404],
      ["/v2/team/app/tags/list", 200],
      // A partial list of signatures would look like the whole list.
      [`/v2/team/app/referrers/${IMAGE.manifest.digest}`, 502],
    ] as const) {
      const got = await mirror.get(path);
      assert.equal(got.status, status, path);
      assert.doesNotMatch(JSON.stringify(got.headers), /trap/);
    }
    assert.equal(dialled(), 0);
  });
});
