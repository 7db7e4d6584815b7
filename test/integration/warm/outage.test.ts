import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CRON_CHECK_MS } from "../../../src/telemetry/cron-runs.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { buildImage } from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { jobUntil, startWarm, warm } from "../../support/warm-job.ts";

const image = buildImage({ seed: "outage", layers: [3_000] });
const TAGS = ["1.0", "1.1", "1.2", "2.0"];
const LIST = {
  name: "list.yaml",
  text: "quay.io:\n  images-by-semver: {team/app: '<2'}\n  images: {team/lib: ['1.0']}\ndocker.io:\n  images: {team/app: ['1.0']}\n",
};

interface Scene {
  readonly hub: ScriptedUpstream;
  readonly quay: ScriptedUpstream;
  readonly mirror: TestMirror;
  /** How long the job paused, each time. */
  readonly pausesMs: number[];
}

/** @param onPause runs when the job pauses, before the time of the pause passes */
async function openScene(
  test: AfterTest,
  onPause: (scene: Scene) => Promise<void>,
): Promise<Scene> {
  const hub = await ScriptedUpstream.start(test);
  const quay = await ScriptedUpstream.start(test);
  for (const { content } of [hub, quay]) {
    for (const tag of TAGS) {
      content.addImage("team/app", image, tag);
      content.addImage("team/lib", image, tag);
    }
  }
  const pausesMs: number[] = [];
  const mirror = await startMirror(
    test,
    [
      upstreamOf(hub, { name: "docker.io", isDefault: true }),
      upstreamOf(quay, { name: "quay.io", isDefault: false }),
    ],
    {
      warmSchedule: (run, delayMs) => {
        // The check for scheduled lists, of which there are none.
        if (delayMs === CRON_CHECK_MS) return () => undefined;
        pausesMs.push(delayMs);
        void onPause(scene).then(() => {
          mirror.clock.advance(delayMs);
          run();
        });
        return () => undefined;
      },
    },
  );
  const scene = { hub, quay, mirror, pausesMs };
  return scene;
}

void describe("a warm job whose upstream is down", () => {
  void it("pauses and continues with images and lists of tags when it is back", async (test) => {
    const { hub, quay, mirror, pausesMs } = await openScene(
      test,
      async (scene) => {
        if (scene.pausesMs.length === 1) await scene.quay.restart();
      },
    );
    await quay.stop();
    const job = await warm(mirror, { lists: [LIST] });
    assert.deepEqual(
      [job.state, job.done, job.total, job.errors],
      ["done", 5, 5, []],
    );
    // The five seconds for which the upstream is left alone, and one for the probe.
    assert.equal(pausesMs[0], 6_000);
    assert.equal(hub.count({ kind: "manifest", method: "GET" }), 1);
    assert.equal(quay.count({ kind: "blob" }), 2);
  });

  void it("fails after two pauses, and only for images of that upstream", async (test) => {
    const { quay, mirror, pausesMs } = await openScene(test, async () => {});
    await quay.stop();
    const job = await warm(mirror, { lists: [LIST] });
    assert.equal(job.state, "failed");
    assert.deepEqual(job.errors.map(({ ref }) => ref).sort(), [
      "list.yaml:2: quay.io/team/app",
      "quay.io/team/lib:1.0",
    ]);
    assert.deepEqual([job.done, job.total], [2, 2]);
    assert.equal(pausesMs.length, 2);
  });

  void it("is cancelled in a pause", async (test) => {
    const paused = Promise.withResolvers<void>();
    const { quay, mirror } = await openScene(test, () => {
      paused.resolve();
      return new Promise(() => undefined);
    });
    await quay.stop();
    const { id } = await startWarm(mirror, { lists: [LIST] });
    await paused.promise;
    const { status } = await mirror.operate("DELETE", `/jobs/${id}`);
    assert.ok(status < 300, String(status));
    const job = await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
    assert.equal(job.state, "cancelled");
  });
});
