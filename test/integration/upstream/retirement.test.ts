import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import { describe, it } from "node:test";
import { digestOf } from "../../../src/oci/digest.ts";
import { systemClock } from "../../../src/telemetry/clock.ts";
import { createUpstreamClient } from "../../../src/upstream/create-client.ts";
import { UpstreamSet } from "../../../src/app/upstream-set.ts";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import { ManualSchedule } from "../../support/manual-schedule.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import {
  ALPINE,
  RecordingObserver,
  SIGNAL,
  startUpstreamClient,
  TAG,
  upstreamConfig,
  upstreamErrorOf,
} from "../../support/upstream-harness.ts";

const BLOB = seededBlob("retirement", 300_000);
const IMAGE = buildImage({ seed: "retirement", layers: [BLOB] });

void describe("an upstream that a reload has replaced", () => {
  void it("is used by running requests, and closed when none is left", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    upstream.content.addImage(ALPINE, IMAGE, "1");
    const barrier = new Barrier();
    upstream.when(
      { kind: "blob" },
      { hold: { at: 150_000, barrier } },
      { times: 1 },
    );
    const looks = new ManualSchedule();
    const retired: string[] = [];
    const set = new UpstreamSet({
      upstreams: [upstreamConfig([upstream.origin])],
      createClient: (config) =>
        createUpstreamClient({
          config,
          instanceId: "test",
          clock: systemClock,
          observer: new RecordingObserver(),
        }),
      onRetired: ({ name }) => retired.push(name),
      schedule: looks.start,
    });
    t.after(() => set.close());
    const client = set.mirrored[0]?.client ?? assert.fail("no upstream");
    const { body } = await client.openBlob(ALPINE, BLOB.digest, {
      signal: SIGNAL,
    });
    assert.equal(set.replace([]), true);
    assert.deepEqual(retired, ["registry.example"]);

    for (let look = 0; look < 3; look += 1) looks.runNext();
    barrier.release();
    assert.equal(digestOf(await buffer(body)), BLOB.digest);
    looks.runNext();
    // A download that broke between two bodies is continued.
    const manifest = await client.getManifest(ALPINE, TAG, SIGNAL);
    assert.equal(manifest.digestHeader, IMAGE.manifest.digest);

    looks.runNext();
    assert.deepEqual(looks.delaysMs, []);
    const closed = await upstreamErrorOf(
      client.getManifest(ALPINE, TAG, SIGNAL),
    );
    assert.equal(closed.kind, "breaker-open");
  });

  void it("no longer reports its endpoints, whose names its replacement uses", async (t) => {
    const upstream = await ScriptedUpstream.start(t);
    const { client, observer } = startUpstreamClient(t, [upstream.origin]);
    client.retire();
    await upstream.stop();
    await upstreamErrorOf(client.getManifest(ALPINE, TAG, SIGNAL));
    assert.equal(client.isDown(), true);
    assert.deepEqual(observer.endpoints, []);
  });
});
