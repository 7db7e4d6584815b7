import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  type ImageCommand,
  runImageCommand,
} from "../../../../src/cli/images/images.ts";
import type { HostedConfig } from "../../../../src/config/config.ts";
import type {
  ImageDetail,
  ImageSummary,
} from "../../../../src/images/images.ts";
import {
  parseRepositoryName,
  parseTag,
  type RepositoryKey,
  type Tag,
} from "../../../../src/oci/reference.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import { AuditFile } from "../../../support/audit-file.ts";
import { CollectedOutput } from "../../../support/collected-output.ts";
import { hostedConfig } from "../../../support/hosted-config.ts";
import {
  type HostedStore,
  pushImage,
  pushIndex,
  pushWhileStopped,
} from "../../../support/hosted-images.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
} from "../../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../../support/mirror-harness.ts";
import { pullImage } from "../../../support/pull-image.ts";
import { ScriptedUpstream } from "../../../support/scripted-upstream.ts";
import { tempDir } from "../../../support/temp-dir.ts";

const MIRRORED = "registry.example/library/app";
const base = buildImage({ seed: "base", layers: [5_000, 6_000] });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });
const own = buildImage({ seed: "own", layers: [8_000] });
const other = buildImage({ seed: "other", layers: [9_000] });
const hostedMulti = buildMultiArch({ seed: "hosted multi", layers: [3_000] });
const signature = buildArtifact({
  seed: "signature",
  artifactType: "application/vnd.example.signature",
  subject: own.manifest,
});

const WHERE = ["a running mirror", "the storage root"] as const;

function keyOf(name: string): RepositoryKey {
  const [upstream = "", ...parts] = name.split("/");
  const repository = parseRepositoryName(parts.join("/"));
  assert(repository !== undefined);
  return { upstream, repository };
}

function tagOf(text: string): Tag {
  const tag = parseTag(text);
  assert(tag !== undefined);
  return tag;
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Scene {
  readonly mirror: TestMirror;
  /** Of commands on the storage root. */
  readonly audit: AuditFile;
  readonly run: (command: ImageCommand, json?: boolean) => Promise<Ended>;
  /** Runs a command that must end with 0, and returns its JSON. */
  readonly json: <T>(command: ImageCommand) => Promise<T>;
  readonly refs: (pattern?: string) => Promise<readonly string[]>;
}

interface SceneOptions {
  readonly where: (typeof WHERE)[number];
  readonly registries?: readonly Partial<HostedConfig>[];
  readonly push?: (store: HostedStore) => Promise<void>;
}

/** Two mirrored images, and what `push` stores in the hosted registries. */
async function setUp(test: AfterTest, options: SceneOptions): Promise<Scene> {
  const { where, registries = [{}, { name: "team" }], push } = options;
  const hosted = registries.map((one) => hostedConfig(one));
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", base, "1");
  upstream.content.addIndex("library/app", multi, "2");
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream, { libraryPrefix: true })],
    { config: { hosted } },
  );
  for (const tag of ["1", "2"]) {
    await pullImage(mirror, "registry.example/library/app", tag);
  }
  if (push !== undefined) await pushWhileStopped(mirror, push);
  const folder = await tempDir(test);
  const configFile = join(folder, "entrepot.yaml");
  const audit = new AuditFile(join(folder, "audit.jsonl"));
  await writeFile(
    configFile,
    JSON.stringify({
      operator: { listen: new URL(mirror.operatorOrigin).host },
      storage: { root: mirror.root },
      audit: { file: audit.path },
      eviction: { maxSize: "1TiB", minFree: "0B", maxIdle: "forever" },
      upstreams: {
        "registry.example": {
          endpoints: [upstream.origin],
          libraryPrefix: true,
        },
      },
      hosted: Object.fromEntries(
        hosted.map(({ name, isDefault, immutableTags, quotaBytes }) => [
          name,
          {
            default: isDefault,
            immutableTags,
            quota: Number.isFinite(quotaBytes) ? `${quotaBytes}B` : 0,
          },
        ]),
      ),
    }),
  );
  if (where === "the storage root") await mirror.close();
  const run = async (command: ImageCommand, json = false): Promise<Ended> => {
    const stdout = new CollectedOutput();
    const stderr = new CollectedOutput();
    const code = await runImageCommand({
      command,
      configFile,
      json,
      env: {},
      cwd: mirror.root,
      stdout,
      stderr,
      confirm: () => Promise.resolve("no terminal"),
    });
    return { code, stdout: stdout.text, stderr: stderr.text };
  };
  const json = async <T>(command: ImageCommand): Promise<T> => {
    const { code, stdout, stderr } = await run(command, true);
    assert.deepEqual([code, stderr], [0, ""], JSON.stringify(command));
    return JSON.parse(stdout) as T;
  };
  return {
    mirror,
    audit,
    run,
    json,
    refs: async (pattern) => {
      const { code, stdout } = await run({ name: "ls", pattern }, true);
      const images = JSON.parse(stdout) as ImageSummary[];
      assert.equal(code, images.length === 0 ? 1 : 0);
      return images.map(({ ref }) => ref);
    },
  };
}

for (const where of WHERE) {
  void describe(`the commands on hosted images, by ${where}`, () => {
    void it("list, show, pin and unpin them", async (test) => {
      const { run, json, refs } = await setUp(test, {
        where,
        push: async (store) => {
          await pushImage(store, keyOf("local/app"), own, [tagOf("1")]);
          await pushImage(store, keyOf("local/app"), signature, []);
          await pushIndex(store, keyOf("team/deep/app"), hostedMulti, [
            tagOf("2"),
          ]);
        },
      });
      assert.deepEqual(
        (await refs()).filter((ref) => ref.includes(":")).slice(0, 2),
        ["local/app:1", `${MIRRORED}:1`],
      );
      const images = await json<ImageSummary[]>({
        name: "ls",
        pattern: undefined,
      });
      const found = images.find(({ ref }) => ref === "local/app:1");
      assert.deepEqual(found && { ...found, pulledAt: "" }, {
        ref: "local/app:1",
        digest: own.manifest.digest,
        mediaType: own.manifest.mediaType,
        sizeBytes:
          own.manifest.sizeBytes +
          own.blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
        complete: true,
        pinned: false,
        hosted: true,
        pulledAt: "",
        platforms: [
          {
            platform: "linux/amd64",
            digest: own.manifest.digest,
            complete: true,
          },
        ],
      });
      assert.deepEqual(
        images.map(({ ref, hosted }) => [ref.split("/")[0], hosted]),
        images.map(({ ref }) => {
          const [registry] = ref.split("/");
          return [registry, registry !== "registry.example"];
        }),
      );
      const detail = await json<ImageDetail>({
        name: "inspect",
        ref: "local/app:1",
      });
      assert.equal(detail.hosted, true);
      assert.deepEqual(detail.referrers, [
        {
          digest: signature.manifest.digest,
          mediaType: signature.manifest.mediaType,
          artifactType: "application/vnd.example.signature",
          sizeBytes: signature.manifest.sizeBytes,
        },
      ]);
      assert.equal(detail.graph.length, 3);
      const shown = await run({ name: "inspect", ref: "team/deep/app:2" });
      assert.match(shown.stdout, /\nhosted +yes\n/);
      const signed = await run({ name: "inspect", ref: "local/app:1" });
      assert.match(
        signed.stdout,
        /\n\nREFERRER +SIZE +DIGEST\napplication\/vnd\.example\.signature +\d+ B +sha256:[0-9a-f]{64}\n$/,
      );
      const { referrers } = await json<ImageDetail>({
        name: "inspect",
        ref: `${MIRRORED}:1`,
      });
      assert.deepEqual(referrers, []);

      assert.equal((await run({ name: "pin", ref: "local/app:1" })).code, 0);
      const listed = await run({ name: "ls", pattern: "local/**:*" });
      assert.match(
        listed.stdout,
        /^IMAGE .*\nlocal\/app:1 .* hosted, pinned\n$/,
      );
      assert.equal((await run({ name: "unpin", ref: "local/app:1" })).code, 0);
    });

    void it("never evict them, and refuse to refresh them", async (test) => {
      const { run, json, refs } = await setUp(test, {
        where,
        push: (store) =>
          pushImage(store, keyOf("local/app"), own, [tagOf("1")]),
      });
      const { images } = await json<{
        readonly images: readonly { readonly ref: string }[];
      }>({ name: "evict", to: "0", isDryRun: false, isConfirmed: true });
      assert.ok(images.every(({ ref }) => !ref.startsWith("local/")));
      assert.deepEqual(await refs(), ["local/app:1"]);
      assert.deepEqual(await run({ name: "refresh", ref: "local/app:1" }), {
        code: 2,
        stdout: "",
        stderr:
          "entrepot: local/app:1 is hosted here and has no upstream; expected a mirrored image\n",
      });
      const all = await run({ name: "refresh", ref: "local/**" });
      assert.deepEqual(
        [all.code, all.stderr],
        [
          1,
          "entrepot: every image that matches local/** is hosted here and has no upstream\n",
        ],
      );
    });

    void it("remove a tag with what only it needs, and with its referrers", async (test) => {
      const { run, json, refs } = await setUp(test, {
        where,
        push: async (store) => {
          await pushImage(store, keyOf("local/app"), own, [
            tagOf("1"),
            tagOf("2"),
          ]);
          await pushImage(store, keyOf("local/app"), signature, []);
          await pushIndex(store, keyOf("local/multi"), hostedMulti, [
            tagOf("1"),
          ]);
          const [platform] = hostedMulti.images;
          assert(platform !== undefined);
          await pushImage(store, keyOf("local/multi"), platform, [
            tagOf("amd64"),
          ]);
        },
      });
      // Another tag names the manifest.
      assert.deepEqual(
        await json({ name: "rm", ref: "local/app:1", isConfirmed: false }),
        { ref: "local/app:1", freedBytes: 0 },
      );
      const detail = await json<ImageDetail>({
        name: "inspect",
        ref: "local/app:2",
      });
      assert.equal(detail.referrers.length, 1);
      const removed = await json<{ readonly freedBytes: number }>({
        name: "rm",
        ref: "local/app:2",
      });
      const ofOwn =
        own.manifest.sizeBytes +
        own.blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      assert.ok(removed.freedBytes > ofOwn, "the signature is gone too");
      assert.deepEqual(await refs("local/app"), []);

      await json({ name: "rm", ref: "local/multi:1" });
      // The platform that has a tag of its own stays.
      assert.deepEqual(await refs("local/multi"), ["local/multi:amd64"]);
      const kept = await json<ImageDetail>({
        name: "inspect",
        ref: "local/multi:amd64",
      });
      assert.equal(kept.complete, true);
      assert.deepEqual(await run({ name: "rm", ref: "local/multi:1" }), {
        code: 1,
        stdout: "",
        stderr: "entrepot: local/multi:1 is not stored\n",
      });
    });

    void it("refuse to remove immutable tags, and go on with the others", async (test) => {
      const { run, refs } = await setUp(test, {
        where,
        registries: [{ immutableTags: ["**:v*"] }],
        push: (store) =>
          pushImage(store, keyOf("local/app"), own, [
            tagOf("latest"),
            tagOf("v1"),
          ]),
      });
      for (const command of [
        { name: "rm", ref: "local/app:v1" },
        { name: "untag", ref: "local/app:v1" },
        { name: "rm", ref: `local/app@${own.manifest.digest}` },
        {
          name: "tag",
          source: `${MIRRORED}:1`,
          target: "local/app:v1",
        },
      ] as const) {
        const { code, stdout, stderr } = await run(command);
        assert.deepEqual([code, stdout], [1, ""], JSON.stringify(command));
        assert.match(stderr, /immutable/);
      }
      const all = await run({ name: "rm", ref: "local/**", isConfirmed: true });
      assert.equal(all.code, 1);
      assert.match(all.stdout, /^removed local\/app:latest; 0 B freed\n$/);
      assert.equal(
        all.stderr,
        "entrepot: local/app:v1: local/app:v1 is immutable\n",
      );
      assert.deepEqual(await refs("local/**"), ["local/app:v1"]);
    });

    void it("tag mirrored and hosted images without copying bytes", async (test) => {
      const { mirror, run, json, refs } = await setUp(test, {
        where,
        push: (store) =>
          pushIndex(store, keyOf("team/app"), hostedMulti, [tagOf("1")]),
      });
      assert.deepEqual(
        await json({
          name: "tag",
          source: "registry.example/app:1",
          target: "local/deep/base:3",
        }),
        {
          source: `${MIRRORED}:1`,
          target: "local/deep/base:3",
          digest: base.manifest.digest,
        },
      );
      const tagged = await run({
        name: "tag",
        source: `team/app@${hostedMulti.manifest.digest}`,
        target: "local/multi",
      });
      assert.deepEqual(
        [tagged.code, tagged.stderr, tagged.stdout],
        [
          0,
          "",
          `local/multi:latest is team/app@${hostedMulti.manifest.digest}, ${hostedMulti.manifest.digest}\n`,
        ],
      );
      assert.deepEqual(await refs("local/**"), [
        "local/deep/base:3",
        "local/multi:latest",
      ]);
      // The sources may go.
      await json({ name: "rm", ref: "team/app:1" });
      await json({ name: "rm", ref: `${MIRRORED}:1` });
      for (const ref of ["local/deep/base:3", "local/multi:latest"]) {
        const { complete, graph } = await json<ImageDetail>({
          name: "inspect",
          ref,
        });
        assert.equal(complete, true, ref);
        assert.ok(graph.every(({ stored }) => stored));
      }
      assert.deepEqual(await json({ name: "untag", ref: "local/multi" }), {
        ref: "local/multi:latest",
        digest: hostedMulti.manifest.digest,
      });
      assert.deepEqual(await run({ name: "untag", ref: "local/multi" }), {
        code: 1,
        stdout: "",
        stderr: "entrepot: local/multi does not exist\n",
      });
      const kept = `local/multi@${hostedMulti.manifest.digest}`;
      assert.equal((await run({ name: "inspect", ref: kept })).code, 0);
      if (where === "the storage root") await mirror.open();
    });

    void it("refuse to tag what is not complete, and change nothing", async (test) => {
      const { run, refs } = await setUp(test, {
        where,
        registries: [{}, { name: "small", quotaBytes: 6_000 }],
      });
      const [, absent] = multi.images;
      assert(absent !== undefined);
      for (const [source, target, code, message] of [
        [
          `${MIRRORED}:2`,
          "local/app:2",
          1,
          `${MIRRORED}:2 is not complete: ${absent.manifest.digest} not stored; pull every platform through this server first, or name one platform by its digest`,
        ],
        [
          `${MIRRORED}:absent`,
          "local/app:2",
          1,
          `${MIRRORED}:absent is not stored; pull it through this server first`,
        ],
        [`${MIRRORED}:1`, "small/app:1", 1, "the quota of small is used up"],
        [
          `${MIRRORED}:1`,
          `local/app@${base.manifest.digest}`,
          2,
          `got local/app@${base.manifest.digest}; expected a tag, as in local/team/app:1`,
        ],
        [
          `${MIRRORED}:1`,
          `${MIRRORED}:3`,
          2,
          `got ${MIRRORED}:3, which is mirrored from registry.example; expected a tag of a hosted repository, as in local/team/app:1`,
        ],
        [
          `${MIRRORED}:1`,
          "gone.example/app:3",
          2,
          "got the target registry gone.example; expected a hosted one",
        ],
      ] as const) {
        assert.deepEqual(
          await run({ name: "tag", source, target }),
          { code, stdout: "", stderr: `entrepot: ${message}\n` },
          `${source} ${target}`,
        );
      }
      assert.deepEqual(await refs("local/**"), []);
      assert.deepEqual(await refs("small/**"), []);
    });

    void it("collect what nothing needs, and list it first", async (test) => {
      const { json, run, refs } = await setUp(test, {
        where,
        push: async (store) => {
          // Pushed long ago, so that no push may still name them.
          await pushImage(store, keyOf("local/app"), own, [tagOf("1")]);
          for (const blob of other.blobs) {
            await store.blobs.put(blob.digest, blob.bytes());
            await store.index.recordHostedBlob(
              keyOf("local/app"),
              {
                digest: blob.digest,
                sizeBytes: blob.sizeBytes,
                storedAtMs: 1,
              },
              { maxBytes: Infinity, reservedBytes: 0 },
            );
          }
        },
      });
      const bytes = other.blobs.reduce(
        (sum, { sizeBytes }) => sum + sizeBytes,
        0,
      );
      const report = {
        deleted: [],
        deletions: 0,
        blobs: other.blobs.length,
        bytes,
      };
      if (where === "the storage root") {
        // A running mirror may have collected them by itself.
        assert.deepEqual(await json({ name: "gc", isDryRun: true }), {
          dryRun: true,
          ...report,
        });
        const text = await run({ name: "gc", isDryRun: true });
        assert.match(text.stdout, /\n2 blobs, .+ would be freed\n$/);
        assert.deepEqual(await json({ name: "gc", isDryRun: false }), {
          dryRun: false,
          ...report,
        });
      }
      assert.equal((await run({ name: "gc", isDryRun: false })).code, 0);
      assert.deepEqual(await json({ name: "gc", isDryRun: false }), {
        dryRun: false,
        deleted: [],
        deletions: 0,
        blobs: 0,
        bytes: 0,
      });
      assert.deepEqual(await refs("local/**"), ["local/app:1"]);
    });

    void it("read names without a registry as those of a hosted default", async (test) => {
      const { json, run } = await setUp(test, {
        where,
        registries: [{ isDefault: true }],
        push: (store) =>
          pushImage(store, keyOf("local/app"), own, [tagOf("1")]),
      });
      const { ref } = await json<ImageDetail>({
        name: "inspect",
        ref: "app:1",
      });
      assert.equal(ref, "local/app:1");
      assert.deepEqual(
        await run({ name: "tag", source: "app:1", target: "team/app" }),
        {
          code: 0,
          stdout: `local/team/app:latest is local/app:1, ${own.manifest.digest}\n`,
          stderr: "",
        },
      );
    });
  });
}

void describe("the audit of commands on hosted images, by the storage root", () => {
  void it("records each change, and neither refusals nor dry runs", async (test) => {
    const { audit, run, json } = await setUp(test, {
      where: "the storage root",
      registries: [{ immutableTags: ["**:v*"] }],
      push: (store) =>
        pushImage(store, keyOf("local/app"), own, [tagOf("1"), tagOf("v1")]),
    });
    await json({ name: "tag", source: "local/app:1", target: "local/b:1" });
    await json({ name: "untag", ref: "local/b:1" });
    await json({ name: "rm", ref: "local/app:1" });
    await json({ name: "gc", isDryRun: true });
    await json({ name: "gc", isDryRun: false });
    for (const command of [
      { name: "untag", ref: "local/app:v1" },
      { name: "rm", ref: "local/app:v1" },
      { name: "rm", ref: "local/app:absent" },
      { name: "tag", source: "local/app:absent", target: "local/b:1" },
    ] as const) {
      assert.equal((await run(command)).code, 1, JSON.stringify(command));
    }
    const client = "command-line";
    const { digest } = own.manifest;
    assert.deepEqual(
      (await audit.records()).map(
        ({ time: _time, seq: _seq, ...record }) => record,
      ),
      [
        {
          event: "tagged",
          client,
          reference: "local/b:1",
          source: "local/app:1",
          digest,
        },
        { event: "untagged", client, reference: "local/b:1", digest },
        { event: "deleted", client, reference: "local/app:1" },
        { event: "collected", client, deletions: 0, blobs: 0, bytes: 0 },
      ],
    );
  });
});
