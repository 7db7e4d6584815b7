import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EventReader } from "../support/event-reader.ts";
import { endedJob, keepJob } from "../support/kept-jobs.ts";
import { startMirror } from "../support/mirror-harness.ts";
import { startRequest } from "../support/raw-client.ts";

const OLD = "0mjuohs00";
const NEW = "0mjuohs01";

void describe("the events of the operator API", () => {
  void it("begin with every listed job, and after an interruption with those that changed", async (test) => {
    const mirror = await startMirror(test, []);
    await keepJob(mirror, OLD);
    await endedJob(mirror, OLD);
    await keepJob(mirror, NEW);
    await endedJob(mirror, NEW);
    const reader = await EventReader.open(test, mirror.operatorOrigin);
    const events = [await reader.next(), await reader.next()];
    assert.deepEqual(
      events.map((each) => [each?.event, each?.job.id]),
      [
        ["job", OLD],
        ["job", NEW],
      ],
    );
    const [first, last] = events;
    assert.deepEqual(last?.job, await endedJob(mirror, NEW));
    const again = await EventReader.open(
      test,
      mirror.operatorOrigin,
      first?.id,
    );
    assert.equal((await again.next())?.job.id, NEW);
    await mirror.restart();
    const restarted = await EventReader.open(
      test,
      mirror.operatorOrigin,
      last.id,
    );
    assert.equal((await restarted.next())?.job.id, OLD);
  });

  void it("end when the mirror stops, and do not delay it", async (test) => {
    const mirror = await startMirror(test, []);
    const reader = await EventReader.open(test, mirror.operatorOrigin);
    const ended = assert.rejects(reader.next(), /terminated|closed/);
    await mirror.close();
    await ended;
  });

  void it("are read by 32 clients at most, and one that leaves makes room", async (test) => {
    const mirror = await startMirror(test, []);
    const readers: EventReader[] = [];
    for (let n = 0; n < 32; n++) {
      readers.push(await EventReader.open(test, mirror.operatorOrigin));
    }
    const refused = await mirror.operator("/api/v1/events");
    assert.equal(refused.status, 429);
    readers[0]?.leave();
    for (;;) {
      const answer = await fetch(`${mirror.operatorOrigin}/api/v1/events`);
      await answer.body?.cancel();
      assert.equal(answer.headers.get("cache-control"), "no-store");
      if (answer.status === 200) break;
    }
  });

  void it("do not answer HEAD", async (test) => {
    const mirror = await startMirror(test, []);
    const { response } = startRequest({
      port: mirror.operatorPort,
      path: "/api/v1/events",
      method: "HEAD",
    });
    assert.equal((await response).status, 404);
  });
});
