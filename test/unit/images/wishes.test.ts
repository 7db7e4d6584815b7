import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Wishes } from "../../../src/images/wishes.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  IndexError,
  type MetadataIndex,
} from "../../../src/storage/metadata-index.ts";
import {
  keyOf,
  manifestOf,
  named,
  tag,
} from "../../contract/metadata-index-contract.ts";
import { overrideIndex } from "../../support/override-index.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { MemoryMetadataIndex } from "../../support/memory-index/memory-metadata-index.ts";
import { quietLog } from "../../support/pulling-mirror.ts";

const ALL = { n: 2_000, last: undefined };

class Scene {
  readonly index: MetadataIndex;
  readonly clock = new FakeClock();
  readonly schedule = new ManualSchedule();
  readonly wishes: Wishes;

  constructor(index: MetadataIndex = new MemoryMetadataIndex()) {
    this.index = index;
    this.wishes = new Wishes({
      index,
      clock: this.clock,
      log: quietLog,
      schedule: this.schedule.start,
    });
  }

  /** Asks for a name as an engine does, a minute after the last one. */
  pull(ref: string, times = 1): void {
    for (let n = 0; n < times; n++) {
      this.clock.advance(60_000);
      this.wishes.note(ref, "offline");
      this.wishes.note(ref, "offline");
    }
  }

  async refs(): Promise<readonly string[]> {
    return (await this.wishes.list(ALL)).items.map(({ ref }) => ref);
  }
}

void describe("names that could not be had", () => {
  void it("are counted by pull, with the last reason and time", async () => {
    const scene = new Scene();
    scene.wishes.note("docker.io/library/b:1", "absent");
    scene.clock.advance(9_999);
    scene.wishes.note("docker.io/library/b:1", "offline");
    scene.clock.advance(10_000);
    scene.wishes.note("docker.io/library/b:1", "denied");
    scene.wishes.note("docker.io/library/a:1", "absent");
    assert.deepEqual(await scene.wishes.list(ALL), {
      items: [
        {
          ref: "docker.io/library/a:1",
          reason: "absent",
          count: 1,
          lastAt: "2026-01-01T00:00:19.999Z",
        },
        {
          ref: "docker.io/library/b:1",
          reason: "denied",
          count: 2,
          lastAt: "2026-01-01T00:00:19.999Z",
        },
      ],
      next: null,
    });
  });

  void it("are listed in pages", async () => {
    const scene = new Scene();
    for (const name of ["c", "a", "b"]) scene.pull(`quay.io/x/${name}:1`);
    const first = await scene.wishes.list({ n: 2, last: undefined });
    assert.deepEqual(
      [first.items.map(({ ref }) => ref), first.next],
      [["quay.io/x/a:1", "quay.io/x/b:1"], "quay.io/x/b:1"],
    );
    const rest = await scene.wishes.list({ n: 2, last: "quay.io/x/b:1" });
    assert.deepEqual(
      [rest.items.map(({ ref }) => ref), rest.next],
      [["quay.io/x/c:1"], null],
    );
  });

  void it("are limited to a thousand; those asked for once give way first", async () => {
    const scene = new Scene();
    scene.pull("docker.io/team/wanted:1", 2);
    for (let n = 0; n < 1_500; n++) scene.pull(`docker.io/scan/${n}:1`);
    const refs = await scene.refs();
    assert.equal(refs.length, 1_000);
    assert.ok(refs.includes("docker.io/team/wanted:1"));
    assert.ok(refs.includes("docker.io/scan/1499:1"));
    assert.ok(!refs.includes("docker.io/scan/0:1"));
    for (let n = 0; n < 1_001; n++) scene.pull(`docker.io/often/${n}:1`, 2);
    const often = await scene.refs();
    assert.equal(often.length, 1_000);
    assert.ok(!often.includes("docker.io/team/wanted:1"));
    assert.ok(often.includes("docker.io/often/1000:1"));
  });

  void it("are no longer listed when they are stored, unless they are denied", async () => {
    const scene = new Scene();
    const key = keyOf("docker.io", "library/app");
    const manifest = manifestOf(named("app"), []);
    const { digest } = manifest;
    const missing = digestOf(Buffer.from("missing"));
    scene.wishes.note("docker.io/library/app:1", "absent");
    scene.wishes.note("docker.io/library/app:2", "absent");
    scene.wishes.note("docker.io/library/app:3", "denied");
    scene.wishes.note(`docker.io/library/app@${digest}`, "offline");
    scene.wishes.note(`docker.io/library/app@${missing}`, "offline");
    assert.equal((await scene.refs()).length, 5);
    await scene.index.recordBlob(key, manifest);
    for (const name of ["1", "3"]) {
      await scene.index.putTag(key, tag(name), digest, 0);
    }
    assert.deepEqual(await scene.refs(), [
      "docker.io/library/app:2",
      "docker.io/library/app:3",
      `docker.io/library/app@${missing}`,
    ]);
  });
});

void describe("records of names that could not be had", () => {
  void it("are written in batches, and read by the next process", async () => {
    const scene = new Scene();
    for (let n = 0; n < 5; n++) scene.pull("docker.io/library/a:1");
    scene.pull("docker.io/library/b:1");
    assert.deepEqual(scene.schedule.delaysMs, [5_000]);
    assert.deepEqual(await scene.index.listRecords("wish", 9, undefined), []);
    scene.schedule.runNext();
    await scene.wishes.stop();
    const next = new Scene(scene.index);
    next.clock.advance(3_600_000);
    next.wishes.note("docker.io/library/a:1", "absent");
    const before = await scene.wishes.list(ALL);
    const unchanged = new Scene(scene.index);
    await unchanged.refs();
    assert.deepEqual(unchanged.schedule.delaysMs, []);
    const [a, b] = (await next.wishes.list(ALL)).items;
    assert.deepEqual(b, before.items[1]);
    assert.deepEqual(a, {
      ref: "docker.io/library/a:1",
      reason: "absent",
      count: 6,
      lastAt: "2026-01-01T01:00:00.000Z",
    });
  });

  void it("are dropped with the name", async () => {
    const scene = new Scene();
    scene.pull("docker.io/library/a:1");
    await scene.wishes.stop();
    const next = new Scene(scene.index);
    await next.refs();
    for (let n = 0; n < 1_000; n++) next.pull(`docker.io/scan/${n}:1`);
    await next.wishes.stop();
    const records = await scene.index.listRecords("wish", 2_000, undefined);
    assert.equal(records.length, 1_000);
    assert.ok(records.every(({ id }) => id.startsWith("docker.io/scan/")));
  });

  void it("are not written for names that gave way before", async () => {
    const written: string[] = [];
    const index = new MemoryMetadataIndex();
    const scene = new Scene(
      overrideIndex(index, {
        writeRecords: (
          ...[kind, put, drop]: Parameters<MetadataIndex["writeRecords"]>
        ) => {
          assert.ok(put.length + drop.length <= 100);
          written.push(...put.map(({ id }) => id), ...drop);
          return index.writeRecords(kind, put, drop);
        },
      }),
    );
    for (let n = 0; n < 5_000; n++) scene.pull(`docker.io/scan/${n}:1`);
    await scene.wishes.stop();
    assert.equal(written.length, 1_000);
  });

  void it("are written only for names that changed or whose record is there", async () => {
    const index = new MemoryMetadataIndex();
    const first = new Scene(index);
    for (const name of ["a", "b"]) first.pull(`docker.io/library/${name}:1`);
    await first.wishes.stop();
    const written: (readonly string[])[] = [];
    const scene = new Scene(
      overrideIndex(index, {
        writeRecords: (kind, put, drop) => {
          written.push([...put.map(({ id }) => id), ...drop]);
          return index.writeRecords(kind, put, drop);
        },
      }),
    );
    await scene.refs();
    scene.pull("docker.io/library/b:1");
    await scene.wishes.stop();
    assert.deepEqual(written, [["docker.io/library/b:1"]]);

    const key = keyOf("docker.io", "library/a");
    const manifest = manifestOf(named("a"), []);
    await index.recordBlob(key, manifest);
    await index.putTag(key, tag("1"), manifest.digest, 0);
    assert.deepEqual(await scene.refs(), ["docker.io/library/b:1"]);
    await scene.wishes.stop();
    assert.deepEqual(written.at(-1), ["docker.io/library/a:1"]);
    // Asked for again, and displaced before it is recorded again.
    scene.pull("docker.io/library/a:1");
    for (let n = 0; n < 1_000; n++) scene.pull(`docker.io/scan/${n}:1`);
    written.length = 0;
    await scene.wishes.stop();
    assert.ok(!written.flat().includes("docker.io/library/a:1"));
  });

  void it("that this version does not read are dropped", async () => {
    const index = new MemoryMetadataIndex();
    const good = { reason: "absent", count: 2, lastAtMs: 5 };
    const records = Object.entries({
      "docker.io/library/good:1": good,
      "docker.io/library/reason:1": { ...good, reason: "tired" },
      "docker.io/library/count:1": { ...good, count: -1 },
      "docker.io/library/time:1": { ...good, lastAtMs: 9e15 },
      "docker.io/library/list:1": [],
      "../etc": good,
    }).map(([id, entry]) => ({ id, text: JSON.stringify(entry) }));
    await index.writeRecords("wish", records, []);
    const scene = new Scene(index);
    assert.deepEqual(await scene.refs(), ["docker.io/library/good:1"]);
    await scene.wishes.stop();
    const kept = await index.listRecords("wish", 9, undefined);
    assert.deepEqual(
      kept.map(({ id }) => id),
      ["docker.io/library/good:1"],
    );
  });

  void it("are written when the index answers again, with what was counted meanwhile", async () => {
    const index = new MemoryMetadataIndex();
    const first = new Scene(index);
    first.pull("docker.io/library/a:1", 3);
    await first.wishes.stop();
    let isFailing = true;
    const guarded =
      <T extends unknown[], R>(call: (...input: T) => Promise<R>) =>
      (...input: T): Promise<R> =>
        isFailing
          ? Promise.reject(new IndexError("the disk failed"))
          : call(...input);
    const scene = new Scene(
      overrideIndex(index, {
        writeRecords: guarded(index.writeRecords.bind(index)),
        listRecords: guarded(index.listRecords.bind(index)),
      }),
    );
    await assert.rejects(scene.wishes.list(ALL), IndexError);
    scene.pull("docker.io/library/a:1", 2);
    scene.schedule.runNext();
    while (scene.schedule.delaysMs.length === 0) await nextTurn();
    assert.deepEqual(scene.schedule.delaysMs, [60_000]);
    isFailing = false;
    await scene.wishes.list(ALL);
    isFailing = true;
    await scene.wishes.stop();
    assert.deepEqual(scene.schedule.delaysMs, []);
    isFailing = false;
    await scene.wishes.stop();
    const [kept] = (await new Scene(index).wishes.list(ALL)).items;
    assert.equal(kept?.count, 5);
  });
});
