import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Job } from "../../../../src/images/jobs/job.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import { Barrier } from "../../../support/barrier.ts";
import { buildImage } from "../../../support/image-builder.ts";
import { endedJob } from "../../../support/kept-jobs.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../../support/mirror-harness.ts";
import { type CliResult, runCli } from "../../../support/run-cli.ts";
import { ScriptedUpstream } from "../../../support/scripted-upstream.ts";
import { writeMirrorConfig } from "../../../support/mirror-config.ts";

const app = buildImage({ seed: "job", layers: [5_000] });

interface Scene {
  readonly mirror: TestMirror;
  readonly upstream: ScriptedUpstream;
  readonly run: (...args: readonly string[]) => Promise<CliResult>;
}

async function setUp(test: AfterTest): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", app, "1");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  const config = await writeMirrorConfig(test, mirror);
  const run = (...args: readonly string[]): Promise<CliResult> =>
    runCli(mirror.root, "jobs", ...args, "--config", config);
  return { mirror, upstream, run };
}

async function startWarm(mirror: TestMirror, ref: string): Promise<Job> {
  const { status, body } = await mirror.operate("POST", "/warm", {
    refs: [ref],
  });
  assert.equal(status, 202);
  return body as Job;
}

void describe("the jobs command", () => {
  void it("lists jobs with headings, and shows one with its failures", async (test) => {
    const { mirror, run } = await setUp(test);
    assert.deepEqual(await run(), {
      code: 0,
      stdout: "no job was started yet\n",
      stderr: "",
    });
    const good = await startWarm(mirror, "library/app:1");
    const bad = await startWarm(mirror, "library/app:absent");
    await endedJob(mirror, bad.id);
    const { code, stdout } = await run();
    assert.equal(code, 0);
    const [heading = "", ...rows] = stdout.trimEnd().split("\n");
    assert.match(heading, /^JOB +KIND +STATE +IMAGES +SIZE +FAILURES +STARTED/);
    assert.deepEqual(
      rows.map((row) => row.split(/ +/).slice(0, 4)),
      [
        [bad.id, "warm", "failed", "1/1"],
        [good.id, "warm", "done", "1/1"],
      ],
    );
    const shown = await run(bad.id);
    assert.equal(shown.code, 0);
    assert.match(shown.stdout, /^state +failed$/m);
    assert.match(shown.stdout, /^started +2026-01-01 00:00 UTC$/m);
    assert.match(shown.stdout, /^registry\.example\/library\/app:absent /m);
    const json = JSON.parse((await run("--json")).stdout) as readonly Job[];
    assert.deepEqual(
      json.map(({ id }) => id),
      [bad.id, good.id],
    );
    const one = JSON.parse((await run(good.id, "--json")).stdout) as Job;
    assert.equal(one.state, "done");
  });

  void it("shows what the list of a job says and the mirror does not apply", async (test) => {
    const { mirror, run } = await setUp(test);
    const { body } = await mirror.operate("POST", "/warm", {
      lists: [
        {
          name: "sync.yaml",
          text: "registry.example:\n  tls-verify: false\n  images:\n    library/app: ['1']\n",
        },
      ],
    });
    const { id } = body as Job;
    await endedJob(mirror, id);
    const { stdout } = await run(id);
    assert.match(stdout, /^state +done$/m);
    assert.match(
      stdout,
      /\n\nLIST +NOTE\nsync\.yaml:2 +tls-verify is not used; /,
    );
  });

  void it("cancels a running job", async (test) => {
    const { mirror, upstream, run } = await setUp(test);
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob", method: "GET" },
      { hold: { at: 0, barrier } },
    );
    const { id } = await startWarm(mirror, "library/app:1");
    await barrier.arrived();
    assert.match((await run(id)).stdout, /^IN WORK /m);
    const cancelled = await run(id, "--cancel");
    assert.deepEqual(cancelled, {
      code: 0,
      stdout: `cancelled job ${id} after 0/1 images\n`,
      stderr: "",
    });
    barrier.release();
    assert.equal((await endedJob(mirror, id)).state, "cancelled");
    const again = await run(id, "--cancel");
    assert.equal(again.stdout, `job ${id} had ended before: cancelled\n`);
  });

  void it("explains what is wrong", async (test) => {
    const { mirror, run } = await setUp(test);
    for (const [args, code, stderr] of [
      [["absent"], 1, /^entrepot: no job absent; 'entrepot jobs' lists all\n$/],
      [["absent", "--cancel"], 1, /no job absent/],
      [["--cancel"], 2, /--cancel: got no job; expected the id of one/],
    ] as const) {
      const result = await run(...args);
      assert.equal(result.code, code, args.join(" "));
      assert.match(result.stderr, stderr);
      assert.equal(result.stdout, "");
    }
    await mirror.close();
    const stopped = await run();
    assert.equal(stopped.code, 1);
    assert.match(
      stopped.stderr,
      /jobs run in a mirror, and no mirror with this storage root answers/,
    );
  });
});
