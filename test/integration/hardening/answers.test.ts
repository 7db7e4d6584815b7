import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { accessConfig, basic, writeHtpasswd } from "../../support/access.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  type TestMirrorOptions,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

const IMAGE = buildImage({ seed: "hardening" });
const [LAYER] = IMAGE.layers;
assert.ok(LAYER);
const TAG = "/v2/team/app/manifests/v";
const PATHS = [
  TAG,
  `/v2/team/app/manifests/${IMAGE.manifest.digest}`,
  `/v2/team/app/blobs/${LAYER.digest}`,
  "/v2/team/app/tags/list",
  "/v2/_catalog",
  "/v2/",
  "/v2/team/app/manifests/absent",
  "/v2/UPPER/manifests/v",
];

async function open(
  test: TestContext,
  options: TestMirrorOptions = {},
): Promise<TestMirror> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("team/app", IMAGE, "v");
  return startMirror(test, [upstreamOf(upstream)], options);
}

void describe("the response headers", () => {
  void it("prevent browsers from running published content, and name no program (S19)", async (test) => {
    const mirror = await open(test);
    for (const path of PATHS) {
      for (const { headers } of [
        await mirror.get(path),
        await mirror.head(path),
      ]) {
        assert.equal(
          headers["content-security-policy"],
          "default-src 'none'; sandbox",
          path,
        );
        assert.equal(headers["x-content-type-options"], "nosniff", path);
        assert.equal(headers["server"], undefined);
        assert.equal(headers["x-powered-by"], undefined);
      }
    }
    const blob = await mirror.get(PATHS[2] ?? "");
    assert.equal(blob.headers["content-disposition"], "attachment");
    assert.equal(blob.headers["content-type"], "application/octet-stream");
  });

  void it("keep a shared cache from serving one client's response to another (S20)", async (test) => {
    const mirror = await open(test, {
      access: accessConfig({
        htpasswdFile: await writeHtpasswd(test, { alice: "pw" }),
        anonymous: "none",
      }),
    });
    const alice = { Authorization: basic("alice", "pw") };
    for (const [i, path] of PATHS.entries()) {
      const { status, headers } = await mirror.get(path, alice);
      if (i === PATHS.length - 1) continue;
      assert.equal(headers["vary"], "Authorization", path);
      const isImmutable = status === 200 && path.includes("sha256:");
      assert.equal(
        headers["cache-control"],
        isImmutable ? "private" : "private, no-store",
        path,
      );
    }
    const refused = await mirror.get(TAG);
    assert.equal(refused.status, 401);
    assert.equal(refused.headers["cache-control"], "private, no-store");
  });

  void it("leave caching headers unchanged if access is not restricted", async (test) => {
    const mirror = await open(test);
    const { headers } = await mirror.get(TAG);
    assert.equal(headers["cache-control"], undefined);
    assert.equal(headers["vary"], undefined);
  });

  void it("answer a tag followed by other text with 404 or 400 (S20)", async (test) => {
    const mirror = await open(test);
    for (const end of ["/a.css", ";.css", "%0a", "%2e.css", "/..%2fx"]) {
      const { status } = await mirror.get(`${TAG}${end}`);
      assert.ok(status === 404 || status === 400, `${end}: ${status}`);
    }
  });
});

void describe("the audit", () => {
  void it("has a line for each denial and each failed log-in, and no password", async (test) => {
    const file = join(await tempDir(test), "audit.jsonl");
    const mirror = await open(test, {
      config: { audit: { file } },
      access: accessConfig({
        htpasswdFile: await writeHtpasswd(test, { alice: "pw", bob: "pw2" }),
        anonymous: "none",
        rules: [{ who: ["alice"], repositories: ["**"], actions: ["pull"] }],
      }),
    });
    const denied = { Authorization: basic("bob", "pw2") };
    assert.equal((await mirror.get(TAG, denied)).status, 404);
    const wrong = { Authorization: basic("alice", "canary-of-a-password") };
    assert.equal((await mirror.get(TAG, wrong)).status, 401);
    // Not a failure: docker sends this request before it knows that it must log in.
    assert.equal((await mirror.get(TAG)).status, 401);
    await mirror.close();

    const text = await readFile(file, "utf8");
    const lines = text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(
      lines.map(({ event, user, client, seq }) => [event, user, client, seq]),
      [
        ["denied", "bob", "127.0.0.1", 1],
        ["login-failed", "alice", "127.0.0.1", 2],
      ],
    );
    assert.deepEqual(
      [
        lines[0]?.["method"],
        lines[0]?.["kind"],
        lines[0]?.["repository"],
        lines[0]?.["reference"],
      ],
      ["GET", "tag", "registry.example/team/app", "v"],
    );
    assert.ok(!text.includes("canary"));
  });
});

void describe("X-Forwarded-For", () => {
  const access = accessConfig({ anonymousNetworks: ["192.0.2.0/24"] });
  const headers = { "X-Forwarded-For": "192.0.2.7" };

  void it("of a trusted proxy decides the network of an anonymous client", async (test) => {
    const mirror = await open(test, {
      config: { trustedProxies: ["127.0.0.1"] },
      access,
    });
    assert.equal((await mirror.get(TAG, headers)).status, 200);
    assert.equal((await mirror.get(TAG)).status, 401);
    const clients = mirror.log
      .filter(({ msg }) => msg === "request")
      .map(({ client }) => client);
    assert.deepEqual(clients, ["192.0.2.7", "127.0.0.1"]);
  });

  void it("of any other client is ignored (S7)", async (test) => {
    const mirror = await open(test, { access });
    assert.equal((await mirror.get(TAG, headers)).status, 401);
  });
});
