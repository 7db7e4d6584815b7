import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { UpstreamConfig } from "../../../src/config/config.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { Barrier } from "../../support/barrier.ts";
import {
  type CertificateAuthority,
  createCertificateAuthority,
} from "../../support/certificate-authority.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { UPSTREAM_DEFAULTS } from "../../support/upstream-defaults.ts";

const IMAGE = buildImage({ seed: "templates" });

interface Scene {
  readonly hub: ScriptedUpstream;
  /** Two registries without a key of their own. */
  readonly one: ScriptedUpstream;
  readonly two: ScriptedUpstream;
  readonly template: UpstreamConfig;
  readonly mirror: TestMirror;
}

function templateOf(
  authority: CertificateAuthority,
  more: Partial<UpstreamConfig> = {},
): UpstreamConfig {
  return {
    ...UPSTREAM_DEFAULTS,
    name: "*",
    endpoints: [],
    redirectHosts: ["127.0.0.0/8"],
    tls: { ca: authority.cert, insecureSkipVerify: false },
    ...more,
  };
}

async function setUp(
  test: AfterTest,
  more: Partial<UpstreamConfig> = {},
): Promise<Scene> {
  const authority = createCertificateAuthority();
  const start = async () => {
    const upstream = await ScriptedUpstream.start(test, {
      tls: authority.issue(),
    });
    upstream.content.addImage("team/app", IMAGE, "v");
    return upstream;
  };
  const [one, two] = [await start(), await start()];
  const hub = await ScriptedUpstream.start(test);
  hub.content.addImage("team/app", IMAGE, "v");
  const template = templateOf(authority, more);
  const mirror = await startMirror(test, [upstreamOf(hub)], {
    config: { upstreamTemplates: [template] },
  });
  return { hub, one, two, template, mirror };
}

const TAG = "/v2/team/app/manifests/v";

async function pull(mirror: TestMirror, host: string): Promise<void> {
  const got = await mirror.get(`${TAG}?ns=${host}`);
  assert.equal(got.status, 200);
  assert.equal(got.sha256, IMAGE.manifest.digest);
  assert.equal(got.headers["oci-namespace"], host);
  for (const { digest } of IMAGE.blobs) {
    const blob = await mirror.get(`/v2/team/app/blobs/${digest}?ns=${host}`);
    assert.equal(blob.sha256, digest);
  }
}

async function upstreamNames(mirror: TestMirror): Promise<unknown[]> {
  const { body } = await mirror.operate("GET", "/upstreams");
  const { upstreams } = body as { upstreams: { name: string }[] };
  return upstreams.map(({ name }) => name);
}

void describe("a registry that matches a template", () => {
  void it("is an upstream from its first request, by ns and by path, along with another one", async (test) => {
    const { hub, one, two, mirror } = await setUp(test);
    const before = await upstreamNames(mirror);
    assert.equal(before.length, 1);
    await pull(mirror, one.host);
    await pull(mirror, two.host);
    const byPath = await mirror.get(`/${one.host}${TAG}`);
    assert.equal(byPath.status, 200);
    assert.equal((await mirror.get(`/${one.host}/v2/`)).status, 200);
    assert.equal(hub.count(), 0);
    assert.equal(one.count({ kind: "blob", method: "GET" }), 2);
    assert.equal(two.count({ kind: "blob", method: "GET" }), 2);
    // In the order of last use.
    assert.deepEqual(await upstreamNames(mirror), [
      ...before,
      two.host,
      one.host,
    ]);
  });

  void it("is one upstream for concurrent first requests", async (test) => {
    const { one, mirror } = await setUp(test);
    const barrier = new Barrier();
    one.when({ kind: "manifest" }, { hold: { at: "headers", barrier } });
    const asked = Array.from({ length: 20 }, () =>
      mirror.get(`${TAG}?ns=${one.host}`),
    );
    await mirror.asked(20);
    await barrier.arrived();
    barrier.release();
    for (const got of await Promise.all(asked)) {
      assert.equal(got.sha256, IMAGE.manifest.digest);
    }
    assert.equal(one.count({ kind: "manifest", method: "GET" }), 1);
    assert.equal((await upstreamNames(mirror)).length, 2);
  });

  void it("is counted under the key of its template, and has no gauge of its own", async (test) => {
    const { one, two, mirror } = await setUp(test);
    await pull(mirror, one.host);
    await pull(mirror, two.host);
    await mirror.settled();
    const metrics = await mirror.metrics();
    assert.match(metrics, /^entrepot_cache_requests_total\{upstream="\*",/m);
    assert.match(metrics, /^entrepot_upstream_requests_total\{upstream="\*",/m);
    assert.match(metrics, /^entrepot_fills_in_progress\{upstream="\*"\} 0$/m);
    assert.doesNotMatch(metrics, /127\.0\.0\.1:\d+",kind/);
    assert.ok(!metrics.includes(one.host) && !metrics.includes(two.host));
    const lines = mirror.log.filter((line) => line["upstream"] === one.host);
    assert.ok(lines.length > 0, "the log has its name");
  });

  void it("is not dialled at a private address that redirectHosts does not name", async (test) => {
    const { one, mirror } = await setUp(test, { redirectHosts: [] });
    for (const host of [one.host, `localhost:${one.registry.port}`]) {
      const got = await mirror.get(`${TAG}?ns=${host}`);
      assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
    }
    assert.equal(one.count(), 0);
    assert.equal((await upstreamNames(mirror)).length, 1);
  });

  void it("is not listed before it has answered", async (test) => {
    const { one, mirror } = await setUp(test);
    await one.stop();
    const got = await mirror.get(`${TAG}?ns=${one.host}`);
    assert.deepEqual([got.status, errorCode(got)], [502, "UNAVAILABLE"]);
    assert.equal((await upstreamNames(mirror)).length, 1);
  });

  void it("is served from the cache after a restart without a network, and available to ls, inspect and pin", async (test) => {
    const { one, two, mirror } = await setUp(test);
    await pull(mirror, one.host);
    await mirror.settled();
    await mirror.restart({ offline: true });
    one.forgetRequests();
    await pull(mirror, one.host);
    const other = await mirror.get(`${TAG}?ns=${two.host}`);
    assert.equal(other.status, 404);
    assert.match(other.body.toString(), /"detail":"offline"/);
    assert.equal(one.count() + two.count(), 0);
    const ref = `${one.host}/team/app:v`;
    const list = await mirror.operate("GET", "/images?n=10");
    assert.ok(JSON.stringify(list.body).includes(ref));
    const inspected = await mirror.operate(
      "GET",
      `/images/${encodeURIComponent(ref)}`,
    );
    assert.equal(inspected.status, 200);
    const pinned = await mirror.operate(
      "PUT",
      `/images/${encodeURIComponent(ref)}/pin`,
    );
    assert.equal(pinned.status, 200);
    await mirror.restart({ offline: false });
    const refreshed = await mirror.operate(
      "POST",
      `/images/${encodeURIComponent(ref)}/refresh`,
    );
    assert.equal(refreshed.status, 200);
  });

  void it("is not derived from an operator's reference whose first component has no dot or colon", async (test) => {
    const { mirror } = await setUp(test);
    const refreshed = await mirror.operate(
      "POST",
      "/images/team/app:v/refresh",
    );
    assert.equal(refreshed.status, 404);
    assert.match(JSON.stringify(refreshed.body), /team is not among the upstr/);
    assert.equal((await upstreamNames(mirror)).length, 1);
  });

  void it("is removed with its template by a reload, and returns with it", async (test) => {
    const { one, template, mirror } = await setUp(test);
    await pull(mirror, one.host);
    assert.deepEqual(await mirror.reload({ upstreamTemplates: [] }), [
      "upstreams",
    ]);
    const gone = await mirror.get(`${TAG}?ns=${one.host}`);
    assert.deepEqual([gone.status, errorCode(gone)], [404, "NAME_UNKNOWN"]);
    assert.equal((await upstreamNames(mirror)).length, 1);
    await mirror.reload({ upstreamTemplates: [template] });
    await pull(mirror, one.host);
    const denied = { ...template, deny: ["team/**"] };
    await mirror.reload({ upstreamTemplates: [denied] });
    const refused = await mirror.get(`${TAG}?ns=${one.host}`);
    assert.equal(refused.status, 404);
  });

  void it("has the settings of its own key after a reload that adds it", async (test) => {
    const { hub, one, template, mirror } = await setUp(test);
    await pull(mirror, one.host);
    const own: UpstreamConfig = {
      ...template,
      name: one.host,
      endpoints: [one.origin],
      deny: ["team/**"],
    };
    await mirror.reload({ upstreams: [upstreamOf(hub), own] });
    assert.equal((await mirror.get(`${TAG}?ns=${one.host}`)).status, 404);
    await mirror.reload({ upstreams: [upstreamOf(hub)] });
    await pull(mirror, one.host);
  });

  void it("is not reachable by another spelling of its address", async (test) => {
    const { one, mirror } = await setUp(test);
    for (const host of [
      `0x7f.1:${one.registry.port}`,
      `2130706433:${one.registry.port}`,
      `127.1:${one.registry.port}`,
      `user@${one.host}`,
      `${one.host}/v2`,
      "",
      "..",
    ]) {
      const got = await mirror.get(`${TAG}?ns=${encodeURIComponent(host)}`);
      assert.deepEqual([got.status, errorCode(got)], [404, "NAME_UNKNOWN"]);
    }
    assert.equal(one.count(), 0);
  });
});
