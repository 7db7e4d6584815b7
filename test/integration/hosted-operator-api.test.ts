import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HostedConfig } from "../../src/config/config.ts";
import {
  parseRepositoryName,
  parseTag,
  type RepositoryKey,
  type Tag,
} from "../../src/oci/reference.ts";
import type { AfterTest } from "../support/after-test.ts";
import { AuditFile } from "../support/audit-file.ts";
import { hostedConfig } from "../support/hosted-config.ts";
import {
  type HostedStore,
  pushImage,
  pushWhileStopped,
} from "../support/hosted-images.ts";
import { buildImage } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";

const MIRRORED = "registry.example/library/app:1";
const base = buildImage({ seed: "base", layers: [5_000] });
const one = buildImage({ seed: "one", layers: [6_000] });
const two = buildImage({ seed: "two", layers: [7_000] });

function keyOf(name: string): RepositoryKey {
  const [upstream = "", ...parts] = name.split("/");
  const repository = parseRepositoryName(parts.join("/"));
  assert(repository !== undefined);
  return { upstream, repository };
}

function tagsOf(...texts: readonly string[]): Tag[] {
  return texts.map((text) => {
    const tag = parseTag(text);
    assert(tag !== undefined);
    return tag;
  });
}

function sizeOf({ manifest, blobs }: typeof one): number {
  return (
    manifest.sizeBytes +
    blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  );
}

interface Scene {
  readonly mirror: TestMirror;
  readonly audit: AuditFile;
}

async function setUp(
  test: AfterTest,
  registries: readonly Partial<HostedConfig>[],
  push: (store: HostedStore) => Promise<void>,
): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", base, "1");
  const audit = new AuditFile(`${await tempDir(test)}/audit.jsonl`);
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    config: {
      hosted: registries.map((registry) => hostedConfig(registry)),
      audit: { file: audit.path },
    },
  });
  await pullImage(mirror, "registry.example/library/app", "1");
  await pushWhileStopped(mirror, push);
  return { mirror, audit };
}

/** The status, and the detail of the problem. */
async function refusal(
  mirror: TestMirror,
  ...request: Parameters<TestMirror["operate"]>
): Promise<readonly [number, string]> {
  const { status, body } = await mirror.operate(...request);
  const { detail, type } = body as { detail: string; type: string };
  assert.match(type, /^urn:entrepot:problem:/);
  return [status, detail];
}

void describe("the operator API of hosted repositories", () => {
  void it("reports each registry in the status", async (test) => {
    const { mirror } = await setUp(
      test,
      [
        { isDefault: true },
        { name: "team", quotaBytes: 1_000_000 },
        { name: "empty" },
      ],
      async (store) => {
        await pushImage(store, keyOf("local/a"), one, tagsOf("1", "2"));
        await pushImage(store, keyOf("local/b/c"), one, tagsOf("1"));
        await pushImage(store, keyOf("team/a"), two, tagsOf("1"));
      },
    );
    const { body } = await mirror.operate("GET", "/status");
    const { hosted } = body as { readonly hosted: unknown };
    const none = { repositories: 0, tags: 0, bytes: 0 };
    const common = { uploads: 0, uploadBytes: 0 };
    assert.deepEqual(hosted, [
      {
        name: "local",
        default: true,
        repositories: 2,
        tags: 3,
        // Each digest counts once.
        bytes: sizeOf(one),
        quotaBytes: null,
        ...common,
      },
      {
        name: "team",
        default: false,
        repositories: 1,
        tags: 1,
        bytes: sizeOf(two),
        quotaBytes: 1_000_000,
        ...common,
      },
      { name: "empty", default: false, ...none, quotaBytes: null, ...common },
    ]);
  });

  void it("lists, deletes and names content of a registry that was removed from the configuration", async (test) => {
    const { mirror } = await setUp(test, [{}, { name: "team" }], (store) =>
      pushImage(store, keyOf("team/a"), two, tagsOf("1")),
    );
    await mirror.reload({ hosted: [hostedConfig()] });
    const { body } = await mirror.operate("GET", "/images?q=team/a");
    const { images } = body as {
      readonly images: readonly { ref: string; hosted: boolean }[];
    };
    assert.deepEqual(
      images.map(({ ref, hosted }) => [ref, hosted]),
      [["team/a:1", true]],
    );
    assert.deepEqual(
      await refusal(mirror, "POST", "/tags", {
        source: "team/a:1",
        target: "team/a:1",
      }),
      [400, "got the target registry team; expected a hosted one"],
    );
    const removal = await mirror.operate("DELETE", "/images/team/a:1");
    const removed = removal.body as { ref: string; freedBytes: number };
    assert.deepEqual([removal.status, removed.ref], [200, "team/a:1"]);
    // The eviction, which checks its limits after a start, may have freed the manifest first.
    assert.ok(
      removed.freedBytes === sizeOf(two) ||
        removed.freedBytes === sizeOf(two) - two.manifest.sizeBytes,
      `${removed.freedBytes}`,
    );
    assert.ok(
      (await mirror.metrics()).includes(
        `\nentrepot_storage_bytes ${sizeOf(base)}\n`,
      ),
    );
  });

  void it("tags and untags, names what is refused, and records it", async (test) => {
    const { mirror, audit } = await setUp(
      test,
      [{ immutableTags: ["**:v*"] }, { name: "small", quotaBytes: 100 }],
      (store) => pushImage(store, keyOf("local/a"), one, tagsOf("1", "v1")),
    );
    const digest = base.manifest.digest;
    assert.deepEqual(
      await mirror.operate("POST", "/tags", {
        source: MIRRORED,
        target: "local/b:latest",
      }),
      {
        status: 200,
        body: { source: MIRRORED, target: "local/b:latest", digest },
      },
    );
    // The same again changes nothing.
    assert.equal(
      (
        await mirror.operate("POST", "/tags", {
          source: "local/b",
          target: "local/b:latest",
        })
      ).status,
      200,
    );
    assert.deepEqual(await mirror.operate("DELETE", "/tags/local/b:latest"), {
      status: 200,
      body: { ref: "local/b:latest", digest },
    });
    for (const [method, path, body, status, detail] of [
      [
        "DELETE",
        "/tags/local/b:latest",
        undefined,
        404,
        "local/b:latest does not exist",
      ],
      ["DELETE", "/tags/local/a:v1", undefined, 409, "local/a:v1 is immutable"],
      [
        "DELETE",
        "/images/local/a:v1",
        undefined,
        409,
        "local/a:v1 is immutable",
      ],
      [
        "DELETE",
        `/tags/local/a@${digest}`,
        undefined,
        400,
        "got a digest; expected a tag of a hosted repository",
      ],
      [
        "DELETE",
        `/tags/${MIRRORED}`,
        undefined,
        400,
        "got registry.example/library/app:1; expected a tag of a hosted repository",
      ],
      [
        "POST",
        "/tags",
        { source: MIRRORED, target: "local/a:v1" },
        409,
        "local/a: the tag v1 is immutable",
      ],
      [
        "POST",
        "/tags",
        { source: MIRRORED, target: "small/a" },
        403,
        "the quota of small is used up",
      ],
      [
        "POST",
        "/tags",
        { source: "local/absent", target: "local/a" },
        404,
        "local/absent:latest is not stored",
      ],
      [
        "POST",
        "/tags",
        { source: "local/A", target: "local/a" },
        400,
        "got a text that is not a reference; expected registry/repository:tag, registry/repository@digest or a name of the default registry",
      ],
      [
        "POST",
        "/tags",
        { source: MIRRORED },
        400,
        "body: must have required property 'target'; see /api/v1/openapi.json",
      ],
      [
        "POST",
        "/images/local/a:1/refresh",
        undefined,
        400,
        "local/a:1 is hosted here and has no upstream; expected a mirrored image",
      ],
    ] as const) {
      assert.deepEqual(
        await refusal(mirror, method, path, body),
        [status, detail],
        `${method} ${path} ${JSON.stringify(body)}`,
      );
    }
    assert.equal(
      (await mirror.operate("DELETE", "/images/local/a:1")).status,
      200,
    );
    assert.equal((await mirror.operate("POST", "/gc")).status, 200);
    await audit.find(({ event }) => event === "collected");
    const client = "127.0.0.1";
    const tagged = { event: "tagged", client, reference: "local/b:latest" };
    assert.deepEqual(
      (await audit.records()).map(
        ({ time: _time, seq: _seq, ...rest }) => rest,
      ),
      [
        { ...tagged, source: MIRRORED, digest },
        { ...tagged, source: "local/b:latest", digest },
        { event: "untagged", client, reference: "local/b:latest", digest },
        { event: "deleted", client, reference: "local/a:1" },
        { event: "collected", client, deletions: 0, blobs: 0, bytes: 0 },
      ],
    );
  });

  void it("collects, and lists before what it would delete and why", async (test) => {
    const { mirror } = await setUp(
      test,
      [
        {
          retention: {
            schedule: "0 3 * * *",
            untaggedMs: Infinity,
            rules: [
              {
                match: "ci/**",
                keepNewest: 1,
                keepPulledWithinMs: undefined,
                keepTags: [],
              },
            ],
          },
        },
      ],
      async (store) => {
        await pushImage(store, keyOf("local/ci/a"), one, tagsOf("1"), 1_000);
        await pushImage(store, keyOf("local/ci/a"), one, tagsOf("2"), 2_000);
        await pushImage(store, keyOf("local/ci/a"), two, tagsOf("3"), 3_000);
      },
    );
    const pinned = await mirror.operate("PUT", "/images/local/ci/a:1/pin");
    assert.equal(pinned.status, 200);
    const plan = await mirror.operate("POST", "/gc", { dryRun: true });
    const { deleted, ...counts } = plan.body as {
      readonly deleted: readonly { ref: string; reason: string }[];
    };
    assert.deepEqual(counts, {
      dryRun: true,
      deletions: 1,
      blobs: 0,
      bytes: 0,
    });
    // The pinned one is kept.
    assert.deepEqual(
      deleted.map(({ ref }) => ref),
      ["local/ci/a:2"],
    );
    assert.match(deleted[0]?.reason ?? "", /newest 1/);
    const done = await mirror.operate("POST", "/gc", { dryRun: false });
    assert.deepEqual(done.body, {
      dryRun: false,
      deleted,
      deletions: 1,
      blobs: 0,
      bytes: 0,
    });
    const { body } = await mirror.operate("GET", "/images?q=local/ci/a:");
    const { images } = body as { readonly images: readonly { ref: string }[] };
    assert.deepEqual(
      images.map(({ ref }) => ref),
      ["local/ci/a:1", "local/ci/a:3"],
    );
    assert.equal(
      (await mirror.operate("POST", "/gc", { dryRun: "yes" })).status,
      400,
    );
  });
});
