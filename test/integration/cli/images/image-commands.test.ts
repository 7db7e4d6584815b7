import assert from "node:assert/strict";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Writable } from "node:stream";
import { describe, it } from "node:test";
import { acquireInstanceLock } from "../../../../src/storage/local/root/instance-lock.ts";
import { diskLayout } from "../../../../src/storage/local/root/disk-layout.ts";
import type { Confirmation } from "../../../../src/cli/confirm.ts";
import {
  type ImageCommand,
  runImageCommand,
} from "../../../../src/cli/images/images.ts";
import type { ImageSummary } from "../../../../src/images/images.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { buildImage } from "../../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../../support/mirror-harness.ts";
import { pullImage } from "../../../support/pull-image.ts";
import { ScriptedUpstream } from "../../../support/scripted-upstream.ts";
import { tempDir } from "../../../support/temp-dir.ts";

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

/** Gives the same answer to each question, and records the questions. */
class TestTerminal {
  readonly questions: string[] = [];
  readonly #answer: Confirmation;

  constructor(answer: Confirmation) {
    this.#answer = answer;
  }

  confirm(question: string): Promise<Confirmation> {
    this.questions.push(question);
    return Promise.resolve(this.#answer);
  }
}

async function setUp(test: AfterTest): Promise<{
  mirror: TestMirror;
  upstream: ScriptedUpstream;
  run: (
    command: ImageCommand,
    json?: boolean,
    terminal?: TestTerminal,
  ) => Promise<Ended>;
}> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", first, "1");
  upstream.content.addImage("library/app", second, "2");
  const mirror = await startMirror(test, [
    upstreamOf(upstream, { libraryPrefix: true }),
  ]);
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
      upstreams: {
        "registry.example": {
          endpoints: [upstream.origin],
          default: true,
          libraryPrefix: true,
        },
      },
    }),
  );
  const run = async (
    command: ImageCommand,
    json = false,
    terminal = new TestTerminal("no terminal"),
  ): Promise<Ended> => {
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
      confirm: (question) => terminal.confirm(question),
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
        hosted: false,
        pulledAt: "2026-01-01T00:00:01.000Z",
        platforms: [
          {
            platform: "linux/amd64",
            digest: first.manifest.digest,
            complete: true,
          },
        ],
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
        /^image +registry\.example\/library\/app:1\n(?:.|\n)*\npinned +yes\npulled +2026-01-01 00:00 UTC\n\nPLATFORM +STATE +DIGEST\nlinux\/amd64 +complete +sha256:[0-9a-f]{64}\n\nPART +SIZE +STATE +MEDIA TYPE +DIGEST\nmanifest /,
      );
      assert.match(
        (await run({ name: "ls", pattern: undefined })).stdout,
        /^IMAGE +SIZE +PULLED +PLATFORMS +STATE\n.*app:1 .* 2026-01-01 00:00 UTC +linux\/amd64 +pinned\n/,
      );

      const evict = { name: "evict", to: "0", isConfirmed: true } as const;
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
      assert.match((await run({ name: "rm", ref })).stdout, /^removed /);
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

  for (const where of ["a running mirror", "the storage root"] as const) {
    void it(`ask for confirmation before more than half of the cache is removed, by ${where}`, async (test) => {
      const { mirror, run } = await setUp(test);
      if (where === "the storage root") await mirror.close();
      const count = async (): Promise<number> =>
        (
          JSON.parse(
            (await run({ name: "ls", pattern: undefined }, true)).stdout,
          ) as unknown[]
        ).length;
      const all = {
        name: "evict",
        to: "0",
        isDryRun: false,
        isConfirmed: false,
      } as const;

      const unasked = await run(all);
      assert.deepEqual([unasked.code, unasked.stdout], [2, ""]);
      assert.match(
        unasked.stderr,
        /^entrepot: evict would remove 2 images, (.+) of \1 in the cache; nothing was removed\. Add --yes to confirm, or --dry-run to list the images\n$/,
      );
      assert.equal(await count(), 2);

      const no = new TestTerminal("declined");
      const declined = await run(all, false, no);
      assert.deepEqual(declined, {
        code: 1,
        stdout: "",
        stderr: "entrepot: declined; nothing was removed\n",
      });
      assert.equal(no.questions.length, 1);
      assert.match(
        no.questions[0] ?? "",
        /^Evict 2 images, .+ in the cache\?$/,
      );
      assert.equal(await count(), 2);

      // Half of the cache or less, or a dry run, needs no confirmation.
      const silent = new TestTerminal("declined");
      assert.equal(
        (await run({ ...all, isDryRun: true }, false, silent)).code,
        0,
      );
      assert.equal((await run({ ...all, to: "8KiB" }, false, silent)).code, 0);
      assert.deepEqual(silent.questions, []);
      assert.equal(await count(), 1);

      const yes = new TestTerminal("agreed");
      assert.equal((await run(all, false, yes)).code, 0);
      assert.equal(await count(), 0);
    });
  }

  for (const where of ["a running mirror", "the storage root"] as const) {
    void it(`accept what engines accept, and patterns, by ${where}`, async (test) => {
      const { mirror, run } = await setUp(test);
      if (where === "the storage root") await mirror.close();
      assert.deepEqual(await run({ name: "pin", ref: "app:1" }, true), {
        code: 0,
        stdout: `${JSON.stringify({ ref: `${APP}:1`, pinned: true }, undefined, 2)}\n`,
        stderr: "",
      });
      assert.deepEqual(await run({ name: "inspect", ref: "app" }), {
        code: 1,
        stdout: "",
        stderr: `entrepot: app (${APP}:latest) is not cached\n`,
      });
      assert.deepEqual(await run({ name: "unpin", ref: "**/app:*" }), {
        code: 0,
        stdout: `${APP}:1 is no longer pinned\n${APP}:2 is no longer pinned\n`,
        stderr: "",
      });
      for (const name of ["pin", "unpin", "refresh", "rm"] as const) {
        assert.deepEqual(await run({ name, ref: "**:absent" }), {
          code: 1,
          stdout: "",
          stderr:
            "entrepot: no image matches **:absent; 'entrepot ls' lists the names\n",
        });
      }
      // A pattern as engines would read it.
      for (const [pattern, count] of [
        ["app:*", 2],
        ["ap*:1", 1],
        ["library/*", 2],
        ["registry.example/*", 2],
        ["other.example/*", 0],
        ["app:1", 1],
      ] as const) {
        const { code, stdout } = await run({ name: "ls", pattern }, true);
        assert.equal((JSON.parse(stdout) as unknown[]).length, count, pattern);
        assert.equal(code, count === 0 ? 1 : 0);
      }
      assert.match(
        (await run({ name: "pin", ref: "app:*" })).stdout,
        /^.*app:1 is pinned\n.*app:2 is pinned\n$/,
      );
      assert.equal((await run({ name: "unpin", ref: "library/**" })).code, 0);
      assert.deepEqual(await run({ name: "rm", ref: "*" }), {
        code: 1,
        stdout: "",
        stderr: "entrepot: no image matches *; '**' matches every image\n",
      });
      assert.deepEqual(await run({ name: "ls", pattern: "absent" }), {
        code: 1,
        stdout: "",
        stderr:
          "entrepot: no image matches absent; 'entrepot ls' lists the names\n",
      });
      assert.match(
        (await run({ name: "inspect", ref: "app:*" })).stderr,
        /^entrepot: got app:\*; expected one image, and 'entrepot ls' /,
      );
      const terminal = new TestTerminal("declined");
      const all = { name: "rm", ref: "**/app" } as const;
      assert.equal((await run(all)).code, 2);
      assert.equal((await run(all, false, terminal)).code, 1);
      assert.match(terminal.questions[0] ?? "", /^Remove 2 images, .+\?$/);
      const one = await run({ name: "rm", ref: "**:1" }, false, terminal);
      assert.match(one.stdout, /^removed registry\.example\/library\/app:1; /);
      assert.equal(terminal.questions.length, 1);
      const rest = await run({ ...all, isConfirmed: true }, true);
      const removed = JSON.parse(rest.stdout) as { readonly ref: string }[];
      assert.deepEqual(
        removed.map(({ ref }) => ref),
        [`${APP}:2`],
      );
    });
  }

  void it("refresh a tag only if a mirror is running", async (test) => {
    const { mirror, upstream, run } = await setUp(test);
    upstream.content.addImage("library/app", second, "1");
    const ref = `${APP}:1`;
    assert.deepEqual(await run({ name: "refresh", ref }), {
      code: 0,
      stdout: `${ref} is now ${second.manifest.digest}\n`,
      stderr: "",
    });
    assert.match((await run({ name: "refresh", ref })).stdout, /is still/);
    const byDigest = `${APP}@${first.manifest.digest}`;
    assert.match(
      (await run({ name: "refresh", ref: byDigest })).stdout,
      /@sha256:\w+ is still sha256:/,
    );
    assert.equal((await run({ name: "pin", ref })).code, 0);
    upstream.content.removeTag("library/app", "1");
    assert.deepEqual(await run({ name: "refresh", ref }), {
      code: 1,
      stdout: "",
      stderr: `entrepot: ${ref} is not found in its registry\n`,
    });
    assert.equal((await run({ name: "inspect", ref })).code, 0);
    assert.deepEqual(
      await run({ name: "refresh", ref: "team.example/app:1" }),
      {
        code: 1,
        stdout: "",
        stderr: "entrepot: team.example is not among the upstreams\n",
      },
    );
    await mirror.reload({ offline: true });
    assert.deepEqual(await run({ name: "refresh", ref: byDigest }), {
      code: 1,
      stdout: "",
      stderr: "entrepot: the running mirror is offline\n",
    });
    await mirror.close();
    const { code, stderr } = await run({ name: "refresh", ref });
    assert.equal(code, 1);
    assert.match(stderr, /no mirror is running/);
  });

  void it("report that the root is locked and no mirror with this storage root answers", async (test) => {
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
      /is in use by process \d+, and no mirror with this storage root answers at 127\.0\.0\.1:\d+, or it requires another operator token\n$/,
    );
  });

  void it("name evict where gc has nothing to free, and serve where nothing was ever stored", async (test) => {
    const { mirror, run } = await setUp(test);
    assert.match(
      (await run({ name: "gc", isDryRun: false })).stdout,
      /\ngc is for hosted repositories; 'entrepot evict' frees space of mirrored images\n$/,
    );
    await mirror.close();
    await rm(mirror.root, { recursive: true });
    const { code, stderr } = await run({ name: "ls", pattern: undefined });
    assert.equal(code, 2);
    assert.match(
      stderr,
      /^entrepot: no mirror with this storage root answers at 127\.0\.0\.1:\d+, .* and .* is not a storage root \(no index\.sqlite\); start the mirror with 'entrepot serve', /,
    );
  });

  void it("distinguish invalid usage from a failed operation by the exit code", async (test) => {
    const { mirror, run } = await setUp(test);
    for (const command of [
      { name: "rm", ref: "Alpine" },
      { name: "rm", ref: "docker.io/alpine:" },
      { name: "pin", ref: "docker.io/alpine@latest" },
      { name: "evict", to: "much", isDryRun: true, isConfirmed: true },
      { name: "evict", to: "10", isDryRun: false, isConfirmed: true },
    ] as const) {
      const { code, stdout } = await run(command);
      assert.deepEqual([code, stdout], [2, ""], JSON.stringify(command));
    }
    const evict = {
      name: "evict",
      isDryRun: true,
      isConfirmed: false,
    } as const;
    assert.equal((await run({ ...evict, to: "100%" })).code, 0);
    assert.equal(
      (await run({ ...evict, to: "10" })).stderr,
      "entrepot: --to: got 10; expected a size with a unit such as 10GiB, or 0, or a share of the file system such as 50%\n",
    );
    assert.equal(await mirror.metric("entrepot_evicted_bytes_total"), 0);
  });
});
