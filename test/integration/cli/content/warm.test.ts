import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { describe, it } from "node:test";
import { runWarm, type WarmOptions } from "../../../../src/cli/content/warm.ts";
import type { Job } from "../../../../src/images/jobs/job.ts";
import type { WarmPlan } from "../../../../src/images/warm/warm-plan.ts";
import { Barrier } from "../../../support/barrier.ts";
import { CollectedOutput } from "../../../support/collected-output.ts";
import { buildImage } from "../../../support/image-builder.ts";
import { startMirror, upstreamOf } from "../../../support/mirror-harness.ts";
import { pullImage } from "../../../support/pull-image.ts";
import { ScriptedUpstream } from "../../../support/scripted-upstream.ts";
import { type AfterTest, tempDir } from "../../../support/temp-dir.ts";
import { jobUntil } from "../../../support/warm-job.ts";

const NAME = "registry.example";
const image = buildImage({ seed: "warm command", layers: [40_000] });

/** A running mirror, and the command with its configuration. */
async function setUp(test: AfterTest) {
  const upstream = await ScriptedUpstream.start(test);
  for (const tag of ["1", "2"]) {
    upstream.content.addImage("library/app", image, tag);
  }
  const mirror = await startMirror(test, [
    upstreamOf(upstream, { libraryPrefix: true }),
  ]);
  const cwd = await tempDir(test);
  const configFile = join(cwd, "entrepot.yaml");
  await writeFile(
    configFile,
    JSON.stringify({
      operator: { listen: new URL(mirror.operatorOrigin).host },
      storage: { root: mirror.root },
      upstreams: { [NAME]: { endpoints: [upstream.origin] } },
    }),
  );
  const run = async (
    args: readonly string[],
    options: Partial<WarmOptions> = {},
  ) => {
    const stdout = new CollectedOutput();
    const stderr = new CollectedOutput();
    const code = await runWarm({
      args,
      configFile,
      format: undefined,
      platforms: [],
      withReferrers: false,
      concurrency: undefined,
      isDryRun: false,
      wait: false,
      pin: false,
      isDetached: false,
      json: false,
      env: {},
      cwd,
      stdin: Readable.from([]),
      stdout,
      stderr,
      ...options,
    });
    return { code, stdout: stdout.text, stderr: stderr.text };
  };
  return { mirror, upstream, cwd, run };
}

void describe("the command warm", () => {
  void it("makes the images of lists and references present", async (test) => {
    const { mirror, upstream, cwd, run } = await setUp(test);
    await writeFile(join(cwd, "images.txt"), `${NAME}/app:1\n`);
    const { code, stdout, stderr } = await run(["images.txt", "-"], {
      stdin: Readable.from([Buffer.from(`${NAME}/app:2\n`)]),
    });
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, /^job \w+: (?:queued|running)\n/);
    assert.match(stdout, /\n2 images present, \d+ KiB, in \d+s\n$/);
    await upstream.stop();
    await pullImage(mirror, "library/app", "2");
  });

  void it("sums failures up, and exits with 1", async (test) => {
    const { run } = await setUp(test);
    const { code, stdout, stderr } = await run(["app:1", "app:x", "app:y"]);
    assert.equal(code, 1);
    assert.match(stdout, /\n2 failures; 3 of 3 images examined/);
    assert.equal(
      stderr,
      [
        "entrepot: 2 images: manifest unknown to registry",
        `entrepot:   ${NAME}/library/app:x`,
        `entrepot:   ${NAME}/library/app:y`,
        "",
      ].join("\n"),
    );
  });

  void it("prints what a list says and the mirror does not apply", async (test) => {
    const { cwd, run } = await setUp(test);
    await writeFile(
      join(cwd, "sync.yaml"),
      `${NAME}:\n  tls-verify: false\n  images:\n    library/app: ["1"]\n`,
    );
    for (const isDryRun of [true, false]) {
      const { code, stderr } = await run(["sync.yaml"], { isDryRun });
      assert.equal(code, 0);
      assert.match(
        stderr,
        /^entrepot: note: sync\.yaml:2: tls-verify is not used; .+\n$/,
      );
    }
  });

  void it("prints the job as JSON, and nothing else", async (test) => {
    const { run } = await setUp(test);
    const { code, stdout } = await run(["app:1"], { json: true });
    const job = JSON.parse(stdout) as Job;
    assert.deepEqual([code, job.state, job.done], [0, "done", 1]);
  });

  void it("prints what would be fetched, with --dry-run", async (test) => {
    const { upstream, run } = await setUp(test);
    const text = await run(["app:1"], { isDryRun: true });
    assert.equal(text.code, 0);
    assert.match(
      text.stdout,
      /: 0 of 1 image present; 1 manifest and 2 blobs to fetch/,
    );
    const json = await run(["app:1", "app:x"], { isDryRun: true, json: true });
    assert.equal(json.code, 1);
    const plan = JSON.parse(json.stdout) as WarmPlan;
    assert.equal(plan.upstreams[0]?.blobs, 2);
    assert.equal(upstream.count({ kind: "blob" }), 0);
  });

  void it("leaves the job to the mirror, with --detach", async (test) => {
    const { mirror, upstream, run } = await setUp(test);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: 100, barrier } });
    const { code, stdout } = await run(["app:1"], { isDetached: true });
    const [, id = ""] =
      /^job (\w+): (?:queued|running); see 'entrepot jobs \1'\n$/.exec(
        stdout,
      ) ?? [];
    assert.equal(code, 0);
    barrier.release();
    await jobUntil(mirror, id, ({ state }) => state === "done");
  });

  void it("follows the job over a restart of the mirror", async (test) => {
    const { mirror, upstream, run } = await setUp(test);
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob" },
      { hold: { at: 100, barrier } },
      { times: 1 },
    );
    const ended = run(["app:1"]);
    await upstream.arrived(1, { kind: "blob" });
    const port = mirror.operatorPort;
    await mirror.restart({ operator: { listen: { host: "127.0.0.1", port } } });
    const { code, stdout, stderr } = await ended;
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, /\n1 image present, /);
    barrier.release();
  });

  void it("names the command to start a mirror if none runs", async (test) => {
    const { mirror, run } = await setUp(test);
    const { host } = new URL(mirror.operatorOrigin);
    await mirror.close();
    const { code, stderr } = await run(["app:1"]);
    assert.equal(code, 1);
    assert.equal(
      stderr,
      `entrepot: warm needs a running mirror, and no mirror with this storage root answers at ${host}, or it requires another operator token; start it with 'entrepot serve'\n`,
    );
  });

  for (const [args, options, message] of [
    [["app:1"], { platforms: ["arm64"] }, "--platform: got arm64; expected OS"],
    [["./absent"], {}, "./absent: got no such file; expected a readable list"],
  ] as const) {
    void it(`is refused before anything is ordered: ${message}`, async (test) => {
      const { upstream, run } = await setUp(test);
      const { code, stderr } = await run(args, options);
      assert.equal(code, 2);
      assert.ok(stderr.startsWith(`entrepot: ${message}`), stderr);
      assert.equal(upstream.count(), 0);
    });
  }

  void it("offers to cancel the job at Ctrl-C on a terminal", async (test) => {
    const { mirror, upstream, run } = await setUp(test);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: 100, barrier } });
    const stdin = Object.assign(new PassThrough(), { isTTY: true });
    const stderr = Object.assign(new CollectedOutput(), { isTTY: true });
    const answerQuestion = (async () => {
      await upstream.arrived(1, { kind: "blob" });
      process.emit("SIGINT");
      while (!stderr.text.includes("[y/N] ")) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      stdin.write("y\n");
    })();
    const { code, stdout } = await run(["app:1"], { stdin, stderr });
    await answerQuestion;
    assert.equal(code, 1);
    assert.match(stdout, /cancelled after 0 of 1 image\n$/);
    const { body } = await mirror.operate("GET", "/jobs");
    const { items } = body as { readonly items: readonly Job[] };
    assert.deepEqual(
      items.map(({ state }) => state),
      ["cancelled"],
    );
    barrier.release();
  });

  void it("leaves the job alone at Ctrl-C without a terminal, and says so", async (test) => {
    const { mirror, upstream, run } = await setUp(test);
    const barrier = new Barrier();
    upstream.when({ kind: "blob" }, { hold: { at: 100, barrier } });
    void upstream
      .arrived(1, { kind: "blob" })
      .then(() => process.emit("SIGINT"));
    const { code, stderr } = await run(["app:1"]);
    assert.equal(code, 1);
    const [, id = ""] =
      /job (\w+) continues in the mirror: see 'entrepot jobs \1'\n$/.exec(
        stderr,
      ) ?? [];
    barrier.release();
    await jobUntil(mirror, id, ({ state }) => state === "done");
  });
});
