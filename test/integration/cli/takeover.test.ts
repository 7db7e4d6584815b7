import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";
import {
  runTakeover,
  type TakeoverCommand,
} from "../../../src/cli/content/takeover/takeover.ts";
import type { HostedConfig } from "../../../src/config/config.ts";
import type { ImageSummary } from "../../../src/images/images.ts";
import type {
  TakeoverCounts,
  TakeoverProblem,
} from "../../../src/images/takeover/takeover.ts";
import { scrubRoot } from "../../../src/storage/local/upkeep/scrub-root.ts";
import { systemClock } from "../../../src/telemetry/clock.ts";
import { diskLayout } from "../../../src/storage/local/root/disk-layout.ts";
import type { Descriptor } from "../../../src/oci/descriptor.ts";
import { type AfterTest, releaseAfter } from "../../support/after-test.ts";
import { AuditFile } from "../../support/audit-file.ts";
import { CollectedOutput } from "../../support/collected-output.ts";
import {
  describeFolder,
  DistributionTree,
} from "../../support/distribution-tree.ts";
import { hostedConfig } from "../../support/hosted-config.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
  manifestOf,
} from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { dropRoot, memoryRoot } from "../../support/memory-root.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";

const app = buildImage({ seed: "app", layers: [5_000, 300_000] });
const newer = buildImage({ seed: "newer", layers: [4_000] });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });
const legacy = buildImage({
  seed: "legacy",
  layers: [2_000],
  format: "docker",
});
const strong = buildImage({
  seed: "strong",
  layers: [1_000],
  algorithm: "sha512",
});
const signature = buildArtifact({
  seed: "signature",
  artifactType: "application/vnd.example.signature",
  subject: app.manifest,
});

type Report = TakeoverCounts & {
  readonly problems: readonly TakeoverProblem[];
  readonly warnings: readonly string[];
};

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly report: Report;
}

interface Scene {
  readonly mirror: TestMirror;
  readonly upstream: ScriptedUpstream;
  readonly tree: DistributionTree;
  readonly audit: AuditFile;
  readonly configFile: string;
  readonly run: (command: Partial<TakeoverCommand>) => Promise<Ended>;
  /** Starts the mirror on the storage root, without its upstream. */
  readonly open: () => Promise<void>;
}

/** A stopped mirror, and the folder of another registry on the same file system. */
async function setUp(
  test: AfterTest,
  options: {
    readonly hosted?: Partial<HostedConfig>;
    readonly maxSize?: string;
  } = {},
): Promise<Scene> {
  const { maxSize = "1TiB" } = options;
  const hosted = hostedConfig(options.hosted);
  const upstream = await ScriptedUpstream.start(test);
  const mirror = await startMirror(
    test,
    [upstreamOf(upstream, { libraryPrefix: true })],
    { config: { hosted: [hosted] } },
  );
  await mirror.close();
  const folder = await tempDir(test);
  const audit = new AuditFile(join(folder, "audit.jsonl"));
  const configFile = join(folder, "entrepot.yaml");
  const { quotaBytes, immutableTags } = hosted;
  writeFileSync(
    configFile,
    JSON.stringify({
      operator: { listen: false },
      storage: { root: mirror.root },
      audit: { file: audit.path },
      eviction: { maxSize, minFree: 0, maxIdle: "forever" },
      upstreams: {
        "registry.example": {
          endpoints: [upstream.origin],
          libraryPrefix: true,
        },
      },
      hosted: {
        local: {
          immutableTags,
          quota: Number.isFinite(quotaBytes) ? `${quotaBytes}B` : 0,
        },
      },
    }),
  );
  const tree = new DistributionTree(join(folder, "registry"));
  return {
    mirror,
    upstream,
    tree,
    audit,
    configFile,
    open: async () => {
      await upstream.close();
      await mirror.open();
    },
    run: (command) =>
      runCommand({ dir: tree.root, configFile, cwd: folder, ...command }),
  };
}

async function runCommand(command: Partial<TakeoverCommand>): Promise<Ended> {
  const run = async (json: boolean) => {
    const stdout = new CollectedOutput();
    const stderr = new CollectedOutput();
    const code = await runTakeover({
      dir: undefined,
      upstream: undefined,
      into: undefined,
      registryConfig: undefined,
      isDryRun: false,
      configFile: undefined,
      json,
      env: {},
      cwd: "/",
      stdin: new PassThrough(),
      stderr,
      ...command,
      stdout,
    });
    return { code, stdout: stdout.text, stderr: stderr.text };
  };
  const ended = await run(command.json !== false);
  const report = ended.stdout.startsWith("{")
    ? (JSON.parse(ended.stdout) as Report)
    : ({} as Report);
  return { ...ended, report };
}

function problemsOf({ report }: Ended): readonly string[] {
  return report.problems.map(({ kind, name }) => `${kind}: ${name}`);
}

/** Asserts that a blob is the file of the tree by a second name. */
function assertLinked({ mirror, tree }: Scene, blob: Descriptor): void {
  const stored = statSync(diskLayout(mirror.root).blobFile(blob.digest));
  assert.equal(stored.ino, statSync(tree.blobPath(blob)).ino);
}

void describe("a take-over of a proxy", () => {
  void it("links every blob and serves every image without the upstream, as stale ones", async (test) => {
    const scene = await setUp(test);
    const { tree, run, open, mirror, audit } = scene;
    tree.putImage("library/app", app, "1", "latest");
    tree.putIndex("library/multi", multi, "2");
    tree.putImage("team/legacy", legacy, "old");
    tree.putImage("team/strong", strong, "512");
    tree.putImage("library/other", app, "1");
    tree.write(join(tree.root, "scheduler-state.json"), "{}");
    const before = describeFolder(tree.root);
    const startedAtMs = Date.now();
    const ended = await run({ upstream: "registry.example" });
    assert.deepEqual([ended.code, ended.stderr], [0, ""]);
    assert.deepEqual(describeFolder(tree.root), before);
    const images = [app, ...multi.images, legacy, strong];
    const contents = [
      ...new Map(
        [
          ...images.flatMap(({ blobs, manifest }) => [...blobs, manifest]),
          multi.manifest,
        ].map((one) => [one.digest, one]),
      ).values(),
    ];
    const { repositories, tags, manifests, blobs, bytes, copiedBlobs } =
      ended.report;
    assert.deepEqual(
      { repositories, tags, manifests, blobs, copiedBlobs, bytes },
      {
        repositories: 5,
        tags: 6,
        manifests: 7,
        blobs: contents.length,
        copiedBlobs: 0,
        bytes: contents.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      },
    );
    for (const blob of contents) assertLinked(scene, blob);
    assert.deepEqual(readdirSync(diskLayout(mirror.root).partialFolder), [
      "boot-id",
    ]);
    const [record] = await audit.records();
    assert.equal(record?.["event"], "taken-over");
    assert.equal(record?.["target"], "registry.example");
    rmSync(tree.root, { recursive: true });
    await open();
    const { images: listed } = (await (
      await fetch(`${mirror.operatorOrigin}/api/v1/images`)
    ).json()) as { readonly images: readonly ImageSummary[] };
    assert.equal(listed.length, 6);
    for (const { ref, pulledAt } of listed) {
      // Not the time of the last confirmation: it would be evicted as idle.
      assert(Date.parse(pulledAt) >= startedAtMs, `${ref}: ${pulledAt}`);
    }
    for (const [name, tag] of [
      ["library/app", "1"],
      ["app", "latest"],
      ["library/multi", "2"],
      ["team/legacy", "old"],
      ["library/other", "1"],
    ] as const) {
      const [head] = await pullImage(mirror, `registry.example/${name}`, tag);
      assert(head !== undefined);
      assert.match(cacheStatusOf(head) ?? "", /stale/, name);
    }
    for (const { digest } of [strong.manifest, ...strong.blobs]) {
      const kind = digest === strong.manifest.digest ? "manifests" : "blobs";
      const { status } = await mirror.get(
        `/v2/registry.example/team/strong/${kind}/${digest}`,
      );
      assert.equal(status, 200);
    }
    await mirror.close();
    assert.deepEqual((await scrubRoot(scrubbed(mirror))).findings, []);
  });

  void it("continues after an interruption, and a second run finds everything", async (test) => {
    const scene = await setUp(test);
    const { tree, run } = scene;
    tree.putImage("library/app", app, "1");
    tree.putIndex("library/multi", multi, "2");
    const stderr = new CollectedOutput();
    const terminal = Object.assign(stderr, { isTTY: true, columns: 30 });
    const write = stderr._write.bind(stderr);
    stderr._write = (...input) => {
      process.emit("SIGTERM");
      write(...input);
    };
    const first = await run({ upstream: "registry.example", stderr: terminal });
    assert.equal(first.code, 1);
    const lines = stderr.text.split("\r\u001B[K");
    assert.match(lines[1] ?? "", /^\d+ % {2}\d+ of \d+ links {2}\d/);
    assert.equal(
      lines.at(-1),
      "entrepot: stopped; the same command continues where it stopped\n",
    );
    const second = await run({ upstream: "registry.example" });
    assert.deepEqual([second.code, second.stderr], [0, ""]);
    const third = await run({ upstream: "registry.example" });
    const { tags, blobs, bytes, presentBlobs } = third.report;
    assert.deepEqual({ tags, blobs, bytes }, { tags: 2, blobs: 0, bytes: 0 });
    assert.equal(presentBlobs, 3 + 1 + 2 * 3 + 1);
  });

  void it("takes the parts that a proxy has, and counts the images that lack others", async (test) => {
    const { tree, run, open, mirror } = await setUp(test);
    const [amd64, arm64] = multi.images;
    assert(amd64 !== undefined && arm64 !== undefined);
    tree.putImage("library/multi", amd64);
    tree.putManifest("library/multi", multi.manifest, "2");
    const [config, ...layers] = app.blobs;
    assert(config !== undefined);
    tree.putBlob("library/app", config);
    tree.putManifest("library/app", app.manifest, "1");
    for (const layer of newer.blobs) tree.putBlob("library/expired", layer);
    const { code, stderr, report } = await run({
      upstream: "registry.example",
    });
    assert.deepEqual([code, stderr], [0, ""]);
    assert.deepEqual(
      [report.manifests, report.incomplete, report.unnamedBlobs],
      [3, 1, 0],
    );
    await open();
    await pullImage(mirror, "registry.example/library/multi", "2");
    const head = await mirror.head(
      `/v2/registry.example/library/expired/blobs/${newer.config.digest}`,
    );
    assert.equal(head.status, 200);
    const lacking = await mirror.get(
      `/v2/registry.example/library/app/blobs/${layers[0]?.digest}`,
    );
    assert(lacking.status >= 500);
  });

  void it("names what is damaged, missing or not understood, and takes the rest", async (test) => {
    const scene = await setUp(test);
    const { tree, run, open, mirror } = scene;
    tree.putImage("library/app", app, "1");
    tree.putImage("library/good", newer, "1");
    const [config, layer] = app.blobs;
    assert(config !== undefined && layer !== undefined);
    writeFileSync(tree.blobPath(layer), Buffer.alloc(layer.sizeBytes));
    tree.tag("library/good", "gone", app.manifest);
    mkdirSync(tree.path("repositories/library/good/_manifests/tags/empty"));
    tree.putImage("library/lost", legacy, "1");
    rmSync(tree.blobPath(legacy.manifest));
    const schema1 = manifestOf(
      { schemaVersion: 1, name: "a", fsLayers: [], signatures: [] },
      "application/vnd.docker.distribution.manifest.v1+prettyjws",
    );
    tree.putManifest("library/old", schema1, "1");
    const text = manifestOf("not JSON", "text/plain");
    tree.putManifest("library/old", text);
    tree.putImage("library/torn", strong, "1");
    truncateSync(
      tree.linkPath("library/torn", "_manifests/revisions", strong.manifest),
      0,
    );
    symlinkSync(tree.root, tree.path("repositories/library/away"));
    tree.write(tree.path("repositories/library/note\u001b[2J.txt"), "hello");
    mkdirSync(tree.path("repositories/Upper/_manifests"), { recursive: true });
    const before = describeFolder(tree.root);
    const ended = await run({ upstream: "registry.example" });
    assert.equal(ended.code, 1);
    assert.deepEqual(describeFolder(tree.root), before);
    const blobOf = (blob: Descriptor) =>
      tree.blobPath(blob).slice(tree.path("").length + 1);
    assert.deepEqual(
      problemsOf(ended).toSorted(),
      [
        `damaged: ${blobOf(layer)}`,
        "damaged: library/app:1",
        `damaged: repositories/library/torn/_manifests/revisions/${strong.manifest.digest.replace(":", "/")}/link`,
        "missing: library/good:empty",
        "missing: library/good:gone",
        "missing: library/lost:1",
        "missing: library/torn:1",
        "unknown: library/old:1",
        `unknown: library/old@${text.digest}`,
        "unknown: repositories/Upper",
        "unknown: repositories/library/away",
        "unknown: repositories/library/note?[2J.txt",
      ].toSorted(),
    );
    assert.equal(ended.report.problemCount, 12);
    assert.equal(ended.stderr.trimEnd().split("\n").length, 12);
    assert.equal(ended.stderr.includes("\u001b"), false);
    assert.equal(
      existsSync(diskLayout(mirror.root).blobFile(layer.digest)),
      false,
    );
    await open();
    await pullImage(mirror, "registry.example/library/good", "1");
    const manifest = await mirror.get(
      `/v2/registry.example/library/app/manifests/${app.manifest.digest}`,
    );
    assert.equal(manifest.status, 200);
  });

  void it("keeps a tag that the mirror asked its upstream for later, and takes a newer one", async (test) => {
    const { tree, run, mirror, upstream, open } = await setUp(test);
    for (const tag of ["kept", "taken"]) {
      upstream.content.addImage("library/app", newer, tag);
    }
    await mirror.open();
    for (const tag of ["kept", "taken"]) {
      await pullImage(mirror, "registry.example/library/app", tag);
    }
    const pulledAtMs = mirror.clock.nowMs();
    await mirror.close();
    tree.putImage("library/app", app, "kept", "taken");
    for (const [tag, offsetMs] of [
      ["kept", -60_000],
      ["taken", 60_000],
    ] as const) {
      const time = (pulledAtMs + offsetMs) / 1_000;
      const base = `repositories/library/app/_manifests/tags/${tag}`;
      utimesSync(tree.path(`${base}/current/link`), time, time);
    }
    const ended = await run({ upstream: "registry.example" });
    assert.deepEqual([ended.code, ended.report.tags], [0, 2]);
    await open();
    for (const [tag, image] of [
      ["kept", newer],
      ["taken", app],
    ] as const) {
      const { headers } = await mirror.head(
        `/v2/registry.example/library/app/manifests/${tag}`,
      );
      assert.equal(headers["docker-content-digest"], image.manifest.digest);
    }
  });

  void it("warns if the cache is smaller than what it took", async (test) => {
    const { tree, run } = await setUp(test, { maxSize: "100KB" });
    tree.putImage("library/app", app, "1");
    for (const isDryRun of [true, false]) {
      const ended = await run({ upstream: "registry.example", isDryRun });
      assert.equal(ended.code, 0);
      assert.match(ended.stderr, /eviction\.maxSize is 98 KiB/);
      assert.equal(ended.report.warnings.length, 1);
    }
  });
});

void describe("a take-over from another file system", () => {
  for (const target of [{ upstream: "registry.example" }, { into: "local" }]) {
    void it(`copies the blobs, as a dry run says: ${Object.keys(target)[0]}`, async (test) => {
      const { run, mirror, open } = await setUp(test);
      const folder = memoryRoot();
      releaseAfter(test, () => dropRoot(folder));
      assert.notEqual(statSync(folder).dev, statSync(mirror.root).dev);
      const tree = new DistributionTree(folder);
      tree.putImage("team/app", app, "1");
      const command = { ...target, dir: tree.root };
      const dry = await run({ ...command, isDryRun: true });
      const real = await run(command);
      for (const { code, report } of [dry, real]) {
        assert.deepEqual([code, report.blobs, report.copiedBlobs], [0, 4, 4]);
        assert.equal(report.copiedBytes, report.bytes);
      }
      for (const { digest } of [app.manifest, ...app.blobs]) {
        const file = diskLayout(mirror.root).blobFile(digest);
        const { mode, nlink } = statSync(file);
        assert.deepEqual([mode & 0o777, nlink], [0o600, 1]);
      }
      await open();
      const registry = target.into ?? target.upstream;
      await pullImage(mirror, `${registry}/team/app`, "1");
    });
  }
});

void describe("a take-over of a private registry", () => {
  void it("stores tags, untagged manifests and referrers in a hosted registry, by links", async (test) => {
    const scene = await setUp(test);
    const { tree, run, open, mirror } = scene;
    tree.putImage("app", app, "1", "latest");
    tree.putImage("app", signature);
    tree.putImage("app", newer);
    tree.putIndex("deep/multi", multi, "2");
    tree.putImage("deep/deleted", legacy, "1");
    tree.deleteManifest("deep/deleted", legacy.manifest, "1");
    const before = describeFolder(tree.root);
    const ended = await run({ into: "local" });
    assert.deepEqual([ended.code, ended.stderr], [0, ""]);
    assert.deepEqual(describeFolder(tree.root), before);
    assert.deepEqual(
      [ended.report.tags, ended.report.manifests, ended.report.unnamedBlobs],
      [3, 6, 2],
    );
    for (const { manifest, blobs } of [app, signature, newer]) {
      for (const blob of [manifest, ...blobs]) assertLinked(scene, blob);
    }
    const again = await run({ into: "local" });
    assert.deepEqual([again.code, again.report.blobs], [0, 0]);
    rmSync(tree.root, { recursive: true });
    await open();
    await pullImage(mirror, "local/app", "latest");
    await pullImage(mirror, "local/deep/multi", "2");
    const untagged = await mirror.get(
      `/v2/local/app/manifests/${newer.manifest.digest}`,
    );
    assert.equal(untagged.status, 200);
    const referrers = await mirror.get(
      `/v2/local/app/referrers/${app.manifest.digest}`,
    );
    assert.match(referrers.body.toString(), /vnd\.example\.signature/);
    const deleted = await mirror.get("/v2/local/deep/deleted/manifests/1");
    assert.equal(deleted.status, 404);
    await mirror.close();
    assert.deepEqual((await scrubRoot(scrubbed(mirror))).findings, []);
  });

  void it("goes below a path of the hosted registry", async (test) => {
    const { tree, run, open, mirror } = await setUp(test);
    tree.putImage("app", app, "1");
    tree.putImage("a".repeat(251), newer, "1");
    const ended = await run({ into: "local/team" });
    assert.deepEqual(problemsOf(ended), [`refused: ${"a".repeat(251)}`]);
    await open();
    await pullImage(mirror, "local/team/app", "1");
  });

  void it("refuses images whose parts are damaged or missing, and takes the others", async (test) => {
    const { tree, run, open, mirror } = await setUp(test);
    tree.putImage("bad", app, "1", "2");
    tree.putImage("good", newer, "1");
    tree.putManifest("sparse", multi.manifest, "1");
    tree.putImage("unlinked", legacy, "1");
    rmSync(tree.linkPath("unlinked", "_layers", legacy.config));
    const [, layer] = app.blobs;
    assert(layer !== undefined);
    truncateSync(tree.blobPath(layer), 10);
    const ended = await run({ into: "local" });
    assert.equal(ended.code, 1);
    assert.deepEqual(problemsOf(ended), [
      `damaged: ${tree.blobPath(layer).slice(tree.path("").length + 1)}`,
      "damaged: bad:1, bad:2",
      "missing: sparse:1",
      "missing: unlinked:1",
    ]);
    assert.match(ended.stderr, /sparse:1: it names sha256:[0-9a-f]+, which/);
    assert.match(ended.stderr, /unlinked:1: sha256:[0-9a-f]+: the repository/);
    await open();
    await pullImage(mirror, "local/good", "1");
    for (const name of ["bad", "sparse", "unlinked"]) {
      const { status } = await mirror.head(`/v2/local/${name}/manifests/1`);
      assert.equal(status, 404, name);
    }
  });

  void it("keeps the quota and immutable tags, and does not move a tag that was pushed later", async (test) => {
    const scene = await setUp(test, {
      hosted: { quotaBytes: 100_000, immutableTags: ["app:v*"] },
    });
    const { tree, run, mirror, open } = scene;
    tree.putImage("app", newer, "v1", "moved", "kept");
    assert.equal((await run({ into: "local" })).code, 0);
    tree.putImage("app", legacy, "v1", "moved", "kept");
    const later = Date.now() / 1_000 + 60;
    const base = tree.path("repositories/app/_manifests/tags");
    utimesSync(`${base}/moved/current/link`, later, later);
    utimesSync(`${base}/v1/current/link`, later, later);
    utimesSync(`${base}/kept/current/link`, 1_000, 1_000);
    tree.putImage("big", app, "1");
    tree.putImage("small", signature, "1");
    const ended = await run({ into: "local" });
    assert.equal(ended.code, 1);
    assert.deepEqual(problemsOf(ended), [
      "refused: app:kept",
      "refused: app:v1",
      "refused: big:1",
    ]);
    assert.match(ended.stderr, /app:v1: the tag is immutable/);
    assert.match(ended.stderr, /app:kept: the tag was pushed here later/);
    assert.match(ended.stderr, /big:1: .*the quota of local is used up/);
    const [, , large] = app.blobs;
    assert(large !== undefined);
    const layout = diskLayout(mirror.root);
    assert.equal(existsSync(layout.blobFile(large.digest)), false);
    await open();
    await pullImage(mirror, "local/small", "1");
    for (const [tag, image] of [
      ["v1", newer],
      ["kept", newer],
      ["moved", legacy],
    ] as const) {
      const { headers } = await mirror.head(`/v2/local/app/manifests/${tag}`);
      assert.equal(headers["docker-content-digest"], image.manifest.digest);
    }
  });

  void it("links blobs to the hosted repository that the mirror has already", async (test) => {
    const { tree, run, mirror, open, upstream } = await setUp(test);
    upstream.content.addImage("library/app", app, "1");
    await mirror.open();
    await pullImage(mirror, "registry.example/library/app", "1");
    await mirror.close();
    tree.putImage("app", app, "1");
    const { code, report } = await run({ into: "local" });
    assert.deepEqual([code, report.blobs, report.presentBlobs], [0, 0, 4]);
    await open();
    await pullImage(mirror, "local/app", "1");
  });
});

void describe("a dry run of a take-over", () => {
  for (const target of [{ upstream: "registry.example" }, { into: "local" }]) {
    void it(`changes nothing and reports what the real one does: ${Object.keys(target)[0]}`, async (test) => {
      const scene = await setUp(test);
      const { tree, run, mirror } = scene;
      rmSync(mirror.root, { recursive: true });
      tree.putImage("team/app", app, "1");
      tree.putImage("team/again", app, "1");
      tree.putIndex("team/multi", multi, "1");
      const lost = legacy.blobs[0];
      assert(lost !== undefined);
      tree.putImage("team/legacy", legacy, "1");
      rmSync(tree.blobPath(lost));
      const before = describeFolder(tree.root);
      const dry = await run({ ...target, isDryRun: true });
      assert.equal(existsSync(mirror.root), false);
      const real = await run(target);
      assert.deepEqual(describeFolder(tree.root), before);
      assert.deepEqual(dry.report.problems, real.report.problems);
      assert.deepEqual([dry.code, real.code], [1, 1]);
      assert.deepEqual({ ...dry.report, dryRun: false }, real.report);
      const after = await run({ ...target, isDryRun: true });
      assert.equal(after.report.blobs, 0);
    });
  }
});

void describe("the command takeover", () => {
  void it("finds the tree from the folder of the registry, or from a part of its path", async (test) => {
    const { tree, run } = await setUp(test);
    tree.putImage("library/app", app, "1");
    for (const below of [
      "",
      "docker",
      "docker/registry",
      "docker/registry/v2",
    ]) {
      const { code, report } = await run({
        dir: join(tree.root, below),
        upstream: "registry.example",
      });
      assert.deepEqual([code, report.tags], [0, 1], below);
    }
  });

  void it("prints a summary", async (test) => {
    const { tree, run } = await setUp(test);
    tree.putImage("app", app, "1");
    tree.putBlob("app", newer.config);
    const { stdout } = await run({ into: "local", json: false });
    assert.equal(
      stdout,
      [
        `${tree.root} was taken over as local: 1 repository, 1 tag, 1 manifest`,
        `  4 blobs linked without a copy, 299 KiB`,
        `  1 blob that no manifest names was left out`,
        "",
      ].join("\n"),
    );
  });

  void it("refuses wrong usage before it opens anything", async (test) => {
    const { tree, run, mirror } = await setUp(test);
    rmSync(mirror.root, { recursive: true });
    const empty = await tempDir(test);
    for (const [command, message] of [
      [{}, /expected either --upstream NAME/],
      [{ upstream: "registry.example", into: "local" }, /either --upstream/],
      [
        { upstream: "elsewhere.example" },
        /got elsewhere\.example; expected an upstream of the configuration: registry\.example/,
      ],
      [{ upstream: "local" }, /expected an upstream/],
      [
        { into: "registry.example" },
        /expected a hosted registry of the configuration: local/,
      ],
      [{ into: "local/Upper" }, /one with a path such as local\/team/],
      [{ into: "local", dir: undefined }, /expected the storage folder/],
      [{ into: "local", dir: empty }, /which has docker\/registry\/v2/],
      [{ into: "local", dir: join(empty, "absent") }, /which has docker/],
      [
        { into: "local", registryConfig: "config.yml" },
        /only prints a configuration/,
      ],
    ] as const) {
      const { code, stderr } = await run({ dir: tree.root, ...command });
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
    }
    assert.equal(existsSync(mirror.root), false);
  });

  void it("refuses a storage root that a mirror has open", async (test) => {
    const { tree, run, mirror } = await setUp(test);
    tree.putImage("app", app, "1");
    await mirror.open();
    const { code, stderr } = await run({ into: "local" });
    assert.equal(code, 1);
    assert.match(stderr, /is in use by process \d+; stop the mirror first/);
  });
});

function scrubbed({ root }: TestMirror) {
  return { root, clock: systemClock, isRepair: true };
}
