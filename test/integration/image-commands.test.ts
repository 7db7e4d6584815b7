import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Writable } from "node:stream";
import { describe, it } from "node:test";
import { acquireInstanceLock } from "../../src/cache/instance-lock.ts";
import { diskLayout } from "../../src/cache/disk-layout.ts";
import { type ImageCommand, runImageCommand } from "../../src/cli/images.ts";
import type { ImageSummary } from "../../src/mirror/images.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { buildImage } from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";

const APP = "registry.example/library/app";
const first = buildImage({ seed: "first", layers: [5_000] });
const second = buildImage({ seed: "second", layers: [6_000] });

class Collected extends Writable {
  text = "";
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function setUp(test: AfterTest): Promise<{
  mirror: TestMirror;
  upstream: ScriptedUpstream;
  run: (command: ImageCommand, json?: boolean) => Promise<Ended>;
}> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", first, "1");
  upstream.content.addImage("library/app", second, "2");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  for (const each of ["1", "2"]) {
    mirror.clock.advance(1_000);
    await pullImage(mirror, "library/app", each);
  }
  const configFile = join(await tempDir(test), "entrepot.yaml");
  const { host } = new URL(mirror.operatorOrigin);
  await writeFile(
    configFile,
    JSON.stringify({
      operator: { listen: host },
      storage: { root: mirror.root },
      eviction: { maxSize: "1TiB", minFree: "0B", maxIdle: "forever" },
      upstreams: { "registry.example": { endpoints: [upstream.origin] } },
    }),
  );
  const run = async (command: ImageCommand, json = false): Promise<Ended> => {
    const stdout = new Collected();
    const stderr = new Collected();
    const code = await runImageCommand({
      command,
      configFile,
      json,
      env: {},
      cwd: mirror.root,
      stdout,
      stderr,
    });
    return { code, stdout: stdout.text, stderr: stderr.text };
  };
  return { mirror, upstream, run };
}

void describe("the commands on images", () => {
  for (const where of ["a running mirror", "the storage root"] as const) {
    void it(`work by ${where}`, async (test) => {
      const { mirror, run } = await setUp(test);
      if (where === "the storage root") await mirror.close();
      const list = async (pattern?: string) => {
        const { code, stdout } = await run({ name: "ls", pattern }, true);
        assert.equal(code, 0);
        return JSON.parse(stdout) as ImageSummary[];
      };
      const [one, two, ...others] = await list();
      assert.deepEqual(others, []);
      assert.deepEqual(one, {
        ref: `${APP}:1`,
        digest: first.manifest.digest,
        mediaType: first.manifest.mediaType,
        sizeBytes:
          first.manifest.sizeBytes +
          first.blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
        complete: true,
        pinned: false,
        pulledAt: "2026-01-01T00:00:01.000Z",
      });
      assert.equal(two?.ref, `${APP}:2`);
      assert.equal((await list("**:2")).length, 1);

      const ref = `${APP}:1`;
      assert.deepEqual(await run({ name: "pin", ref }), {
        code: 0,
        stdout: `${ref} is pinned\n`,
        stderr: "",
      });
      assert.equal((await list())[0]?.pinned, true);
      const shown = await run({ name: "inspect", ref }, true);
      const { graph } = JSON.parse(shown.stdout) as { graph: unknown[] };
      assert.equal(graph.length, 3);
      assert.match(
        (await run({ name: "inspect", ref })).stdout,
        /^ref +registry\.example\/library\/app:1\n(?:.|\n)*\npinned +yes\n/,
      );

      const evict = { name: "evict", to: "0B" } as const;
      const would = await run({ ...evict, isDryRun: true }, true);
      const { images } = JSON.parse(would.stdout) as {
        images: { ref: string }[];
      };
      assert.deepEqual(
        images.map((image) => image.ref),
        [`${APP}:2`],
      );
      assert.equal((await list()).length, 2);
      assert.equal((await run({ ...evict, isDryRun: false })).code, 0);
      assert.deepEqual(
        (await list()).map((image) => image.ref),
        [ref],
      );

      assert.equal((await run({ name: "unpin", ref })).code, 0);
      assert.match((await run({ name: "rm", ref })).stdout, /is dropped/);
      assert.deepEqual(await list(), []);
      for (const name of ["inspect", "pin", "unpin", "rm"] as const) {
        const { code, stderr } = await run({ name, ref });
        assert.deepEqual(
          [code, stderr],
          [1, `entrepot: ${ref} is not cached\n`],
          name,
        );
      }
    });
  }

  void it("refresh a tag by a running mirror only", async (test) => {
    const { mirror, upstream, run } = await setUp(test);
    upstream.content.addImage("library/app", second, "1");
    const ref = `${APP}:1`;
    assert.deepEqual(await run({ name: "refresh", ref }), {
      code: 0,
      stdout: `${ref} is now ${second.manifest.digest}\n`,
      stderr: "",
    });
    assert.match((await run({ name: "refresh", ref })).stdout, /is still/);
    await mirror.close();
    const { code, stderr } = await run({ name: "refresh", ref });
    assert.equal(code, 1);
    assert.match(stderr, /no mirror is running/);
  });

  void it("say so where the root is held and nobody answers", async (test) => {
    const { mirror, run } = await setUp(test);
    await mirror.close();
    const lock = acquireInstanceLock(diskLayout(mirror.root));
    releaseAfter(test, () => lock.release());
    const { code, stdout, stderr } = await run({
      name: "ls",
      pattern: undefined,
    });
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(
      stderr,
      /is in use by process \d+, and no mirror answers at 127\.0\.0\.1:\d+, or it wants another operator token\n$/,
    );
  });

  void it("tell bad usage from what could not be done", async (test) => {
    const { mirror, run } = await setUp(test);
    for (const command of [
      { name: "rm", ref: "alpine" },
      { name: "rm", ref: "docker.io/alpine" },
      { name: "pin", ref: "docker.io/alpine@latest" },
      { name: "evict", to: "much", isDryRun: true },
    ] as const) {
      const { code, stdout } = await run(command);
      assert.deepEqual([code, stdout], [2, ""], JSON.stringify(command));
    }
    assert.equal(
      (await run({ name: "evict", to: "100%", isDryRun: true })).code,
      0,
    );
    assert.equal(await mirror.metric("entrepot_evicted_bytes_total"), 0);
  });
});
