import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, it } from "node:test";
import { IndexChildren } from "../../../../src/mirror/manifests/index-children.ts";
import { type Digest, digestOf } from "../../../../src/oci/digest.ts";
import { OCI_INDEX } from "../../../../src/oci/media-type.ts";
import { cacheStatus } from "../../../../src/telemetry/cache-status.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { ManualSchedule } from "../../../support/manual-schedule.ts";
import { ScriptedRegistry } from "../../../support/scripted-client.ts";
import { repositoryName } from "../../../support/upstream-harness.ts";

/** Bounds of the waiting and the remembered indexes; see the source. */
const MAX_WAITING = 1_000;
const REPOSITORY = repositoryName("a");

const unasked = (): Promise<never> =>
  Promise.reject(new Error("nothing is stored"));

/** Children of indexes that are never stored; each child is looked up once. */
class Scene {
  readonly schedule = new ManualSchedule();
  readonly sought: Digest[] = [];
  readonly children: IndexChildren;
  readonly #upstream = new ScriptedRegistry().upstream("one");

  constructor() {
    this.children = new IndexChildren({
      upstreamOf: () => this.#upstream,
      index: {
        getLinkedBlob: (_key, digest) => {
          this.sought.push(digest);
          return Promise.resolve(undefined);
        },
      },
      stored: { read: unasked },
      digests: { prefetch: unasked },
      blobs: { prefetch: unasked },
      isOffline: () => false,
      isShort: () => false,
      clock: new FakeClock(),
      log: { debug: () => undefined },
      schedule: this.schedule.start,
    });
  }

  pull(upstream: string, name: string): void {
    this.children.onAnswered(
      { upstream, repository: REPOSITORY },
      {
        bytes: Buffer.alloc(0),
        mediaType: OCI_INDEX,
        digest: digestOf(Buffer.from(name)),
        status: cacheStatus.hit(),
        ageMs: 0,
        isStale: false,
      },
      false,
    );
  }

  /** Runs due work until none is left. */
  async settle(): Promise<void> {
    while (this.schedule.delaysMs.length > 0) {
      this.schedule.runNext();
      let seen = -1;
      while (seen !== this.sought.length) {
        seen = this.sought.length;
        await nextTurn();
      }
    }
  }
}

void describe("indexes that wait for their children", () => {
  void it("are bounded in number, of all upstreams together", async () => {
    const scene = new Scene();
    for (let at = 0; at < MAX_WAITING; at += 1) {
      scene.pull(at % 2 === 0 ? "one" : "two", `index ${at}`);
    }
    scene.pull("one", "one more");
    scene.pull("three", "and one");
    await scene.settle();
    assert.equal(scene.sought.length, MAX_WAITING);
    assert.equal(new Set(scene.sought).size, MAX_WAITING);
  });

  void it("are queued once each, when earlier ones have left the queue", async () => {
    const scene = new Scene();
    for (let round = 0; round < 3; round += 1) scene.pull("one", "index");
    assert.equal(scene.schedule.delaysMs.length, 1);
    await scene.settle();
    assert.equal(scene.sought.length, 1);
    for (let at = 0; at < MAX_WAITING; at += 1) scene.pull("one", `${at}`);
    await scene.settle();
    assert.equal(scene.sought.length, 1 + MAX_WAITING);
  });

  void it("are dropped when the mirror closes", async () => {
    const scene = new Scene();
    scene.pull("one", "index");
    await scene.children.stop();
    scene.pull("one", "another");
    assert.deepEqual(scene.schedule.delaysMs, []);
    assert.deepEqual(scene.sought, []);
  });
});
