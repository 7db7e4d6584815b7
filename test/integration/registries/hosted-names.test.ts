import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { NameConflictError } from "../../../src/app/registry-names.ts";
import { openLocalStorage } from "../../../src/storage/local/open-local-storage.ts";
import { UNLIMITED } from "../../contract/hosted-index-contract.ts";
import { keyOf } from "../../contract/metadata-index-contract.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  errorCode,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { upstreamConfig } from "../../support/upstream-harness.ts";

const IMAGE = buildImage({ seed: "names" });
const local = hostedConfig();
const UPSTREAM = "registry.example";

/** Stores pushed content of the registry in a closed root. */
async function pushTo(root: string, registry: string): Promise<void> {
  const log = { info() {}, warn() {}, error() {} };
  const storage = await openLocalStorage({ root, clock: new FakeClock(), log });
  const { digest } = IMAGE.config;
  const row = { digest, sizeBytes: 6, storedAtMs: 0 };
  const key = keyOf(registry, "team/app");
  assert.equal(
    await storage.index.recordHostedBlob(key, row, UNLIMITED),
    "stored",
  );
  await storage.close();
}

async function setUp(test: AfterTest): Promise<{
  readonly upstream: ScriptedUpstream;
  readonly mirror: TestMirror;
}> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("team/app", IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    config: {
      hosted: [local],
      upstreamTemplates: [upstreamConfig([], { name: "*" })],
    },
  });
  return { upstream, mirror };
}

void describe("a name that was hosted", () => {
  void it("can't become an upstream's name or alias while it has content", async (test) => {
    const { upstream, mirror } = await setUp(test);
    await mirror.close();
    await pushTo(mirror.root, "local");
    for (const config of [
      upstreamOf(upstream, { name: "local" }),
      upstreamOf(upstream, { aliases: ["local"] }),
    ]) {
      await assert.rejects(
        mirror.restart({ hosted: [], upstreams: [config] }),
        NameConflictError,
      );
    }
    // The root is not locked, and nothing changed in it.
    await mirror.restart({
      hosted: [local],
      upstreams: [upstreamOf(upstream)],
    });
    const { status } = await mirror.get(`/v2/${UPSTREAM}/team/app/manifests/v`);
    assert.equal(status, 200);
  });

  void it("is out of reach of templates when it is no longer configured", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.close();
    await pushTo(mirror.root, "local");
    await mirror.restart({ hosted: [] });
    assert.ok(
      mirror.log.some(({ msg }) =>
        /hosted registries with content are not/.test(String(msg)),
      ),
    );
    for (const path of [
      "/v2/team/app/manifests/v?ns=local",
      "/local/v2/team/app/manifests/v",
    ]) {
      const response = await mirror.get(path);
      assert.deepEqual(
        [response.status, errorCode(response)],
        [404, "NAME_UNKNOWN"],
      );
    }
  });

  void it("is out of reach of templates after a reload removed it", async (test) => {
    const { mirror } = await setUp(test);
    assert.deepEqual(await mirror.reload({ hosted: [] }), ["hosted"]);
    const response = await mirror.get("/v2/team/app/manifests/v?ns=local");
    assert.deepEqual(
      [response.status, errorCode(response)],
      [404, "NAME_UNKNOWN"],
    );
  });
});

void describe("a name that was mirrored", () => {
  void it("can't become hosted while it has content, at a start or by a reload", async (test) => {
    const { mirror } = await setUp(test);
    const path = `/v2/${UPSTREAM}/team/app/manifests/v`;
    assert.equal((await mirror.get(path)).status, 200);
    const hosted = [local, hostedConfig({ name: UPSTREAM })];
    await assert.rejects(
      mirror.reload({ hosted, upstreams: [] }),
      NameConflictError,
    );
    assert.equal((await mirror.get(path)).status, 200);
    await assert.rejects(
      mirror.restart({ hosted, upstreams: [] }),
      NameConflictError,
    );
  });
});

void describe("a reload of hosted", () => {
  void it("applies to new requests, and only reports what changed", async (test) => {
    const { mirror } = await setUp(test);
    const statusOf = async (path: string): Promise<number> => {
      const headers = { Via: "1.1 proxy" };
      return (await mirror.start(path, { method: "POST", headers }).response)
        .status;
    };
    const [here, there] = ["local", "team"].map(
      (name) => `/v2/${name}/a/blobs/uploads/`,
    ) as [string, string];
    assert.equal(await statusOf(here), 403);
    const open = hostedConfig({ anonymousPush: "anywhere" });
    const team = hostedConfig({ name: "team", anonymousPush: "none" });
    assert.deepEqual(await mirror.reload({ hosted: [open, team] }), ["hosted"]);
    assert.notEqual(await statusOf(here), 403);
    assert.equal(await statusOf(there), 403);
    assert.deepEqual(await mirror.reload({}), []);
  });
});
