import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ChildMirror } from "../support/child-mirror.ts";
import { buildImage, seededBlob } from "../support/image-builder.ts";
import { type RawResponse, rawRequest } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";

/*
 * One blob, list or challenge that fails must not block other resources of its registry, nor another
 * registry. Two upstreams with the defaults.
 */

const OTHERS = 60;
const SICK = seededBlob("one-resource/sick", 10_000);
const BLOBS = Array.from({ length: OTHERS }, (_, at) =>
  seededBlob(`one-resource/${at}`, 20_000 + at),
);
const IMAGE = buildImage({ seed: "one-resource" });
/** The longest delay until a recovery is noticed: the pause and a probe. */
const RECOVERY_MS = 20_000;

interface Scene {
  readonly upstream: ScriptedUpstream;
  readonly other: ScriptedUpstream;
  readonly mirror: ChildMirror;
}

async function setUp(
  test: TestContext,
  options: {
    readonly auth?: NonNullable<
      Parameters<typeof ScriptedUpstream.start>[1]
    >["auth"];
    readonly config?: Readonly<Record<string, unknown>>;
  } = {},
): Promise<Scene> {
  const { auth, config } = options;
  const upstream = await ScriptedUpstream.start(
    test,
    auth === undefined ? {} : { auth },
  );
  const other = await ScriptedUpstream.start(test);
  for (const registry of [upstream, other]) {
    registry.content.addBlob("team/app", SICK);
    for (const [at, blob] of BLOBS.entries()) {
      registry.content.addBlob("team/app", blob);
      registry.content.addImage(`team/r${at}`, IMAGE, "v");
    }
  }
  const mirror = await ChildMirror.start(test, {
    config: {
      upstreams: {
        "sick.example": {
          default: true,
          endpoints: [upstream.origin],
          ...config,
        },
        "other.example": { endpoints: [other.origin] },
      },
    },
  });
  return { upstream, other, mirror };
}

function get({ mirror }: Scene, path: string): Promise<RawResponse> {
  return rawRequest({ port: mirror.port, path, timeoutMs: 40_000 });
}

/** Requests different resources simultaneously and counts complete answers. */
async function countWhole(
  scene: Scene,
  pathOf: (at: number) => string,
): Promise<number> {
  const answers = await Promise.all(
    BLOBS.map((_, at) => get(scene, pathOf(at))),
  );
  return answers.filter(
    ({ status, end }) => status === 200 && end === "complete",
  ).length;
}

const blobOf = (at: number): string =>
  `/v2/team/app/blobs/${BLOBS[at]?.digest}`;
const manifestOf = (at: number): string => `/v2/team/r${at}/manifests/v`;

async function stateOf({ mirror }: Scene): Promise<unknown> {
  const response = await fetch(`${mirror.operatorOrigin}/api/v1/upstreams`);
  const { upstreams } = (await response.json()) as {
    readonly upstreams: readonly { readonly state: string }[];
  };
  return upstreams[0]?.state;
}

async function isUp({ mirror, upstream }: Scene): Promise<boolean> {
  return (await mirror.metrics()).includes(
    `entrepot_upstream_up{upstream="sick.example",endpoint="${upstream.origin}"} 1`,
  );
}

void describe("one resource that fails", () => {
  for (const status of [503, 429]) {
    void it(`a blob answered ${status} with Retry-After does not affect other resources of the registry`, async (test) => {
      const scene = await setUp(test);
      scene.upstream.when(
        { kind: "blob", reference: SICK.digest },
        { status, headers: { "retry-after": "120" } },
      );
      const sick = await get(scene, `/v2/team/app/blobs/${SICK.digest}`);
      assert.notEqual(sick.status, 200);
      const whole = await countWhole(scene, blobOf);
      const manifests = await countWhole(scene, manifestOf);
      test.diagnostic(`${status}: ${whole} of ${OTHERS} other blobs whole`);
      test.diagnostic(`${status}: ${manifests} of ${OTHERS} manifests whole`);
      assert.deepEqual([whole, manifests], [OTHERS, OTHERS]);
      // Retry-After is obeyed for that blob.
      await get(scene, `/v2/team/app/blobs/${SICK.digest}`);
      assert.equal(scene.upstream.count({ reference: SICK.digest }), 1);
      assert.equal(await stateOf(scene), "up");
    });
  }

  void it("a tags list that times out does not affect manifests, blobs and the other registry", async (test) => {
    const scene = await setUp(test);
    scene.upstream.when({ kind: "tags" }, { stallAt: "headers" });
    const list = await get(scene, "/v2/team/app/tags/list");
    assert.equal(list.status, 504);
    const counts = [
      await countWhole(scene, manifestOf),
      await countWhole(scene, blobOf),
      await countWhole(
        scene,
        (at) => `/v2/other.example/team/r${at}/manifests/v`,
      ),
    ];
    test.diagnostic(`tags/list: ${counts.join(", ")} of ${OTHERS} whole`);
    assert.deepEqual(counts, [OTHERS, OTHERS, OTHERS]);
  });

  void it("a registry that recovered is detected without a client's request", async (test) => {
    const scene = await setUp(test);
    assert.equal((await get(scene, manifestOf(0))).status, 200);
    await scene.upstream.stop();
    assert.equal((await get(scene, manifestOf(1))).status, 502);
    assert.equal(await isUp(scene), false);
    await scene.upstream.restart();
    scene.upstream.forgetRequests();
    const startMs = performance.now();
    while (!(await isUp(scene)) && performance.now() - startMs < RECOVERY_MS) {
      await delay(100);
    }
    const tookMs = Math.round(performance.now() - startMs);
    test.diagnostic(`recovery: up ${await isUp(scene)} after ${tookMs} ms`);
    assert.equal(await isUp(scene), true);
    assert.equal(await stateOf(scene), "up");
    assert.deepEqual(
      scene.upstream.requests().map(({ method }) => method),
      ["HEAD"],
    );
  });
});

void describe("one invalid challenge", () => {
  const auth = { scheme: "bearer", realm: "port" } as const;
  const config = { tokenRealms: ["127.0.0.1"] };

  void it("a moved realm is learned again, and every repository is pulled", async (test) => {
    const scene = await setUp(test, { auth, config });
    const { upstream } = scene;
    assert.equal((await get(scene, manifestOf(0))).status, 200);
    await upstream.tokenListener?.stop();
    upstream.when(
      {
        kind: "manifest",
        where: ({ headers }) => headers["authorization"] === undefined,
      },
      ({ repository }) => ({
        headers: {
          "www-authenticate": `Bearer realm="${upstream.origin}/token",service="scripted",scope="repository:${repository}:pull"`,
        },
      }),
      { beforeAuth: true },
    );
    const whole = await countWhole(scene, manifestOf);
    test.diagnostic(`moved realm: ${whole} of ${OTHERS} manifests whole`);
    test.diagnostic(`moved realm: state ${String(await stateOf(scene))}`);
    assert.equal(whole, OTHERS);
    assert.equal(await stateOf(scene), "up");
  });

  void it("fails its own request, and no other", async (test) => {
    const scene = await setUp(test, { auth, config });
    const { upstream } = scene;
    upstream.when(
      { where: ({ target }) => target.startsWith("/nowhere") },
      { status: 404 },
      { beforeAuth: true },
    );
    upstream.when(
      { kind: "manifest" },
      {
        headers: {
          "www-authenticate": `Bearer realm="${upstream.origin}/nowhere",service="scripted"`,
        },
      },
      { beforeAuth: true, times: 1 },
    );
    await get(scene, manifestOf(0));
    const whole = await countWhole(scene, manifestOf);
    test.diagnostic(`bad challenge: ${whole} of ${OTHERS} manifests whole`);
    test.diagnostic(`bad challenge: state ${String(await stateOf(scene))}`);
    assert.equal(whole, OTHERS);
  });
});
