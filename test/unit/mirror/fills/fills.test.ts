import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MetadataIndex } from "../../../../src/storage/metadata-index.ts";
import type { Room } from "../../../../src/retention/room.ts";
import { Fills } from "../../../../src/mirror/fills/fills.ts";
import type { MirroredUpstream } from "../../../../src/mirror/mirrored-upstream.ts";
import type { RepositoryName } from "../../../../src/oci/reference.ts";
import { createLogger } from "../../../../src/telemetry/logger.ts";
import { createMetrics } from "../../../../src/telemetry/metrics.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import {
  blobOf,
  HandFedUpstream,
  makeStore,
} from "../../../support/fill-harness.ts";

const KEY = { upstream: "one", repository: "a" as RepositoryName };
const NO_ROOM: Pick<Room, "reserve" | "isShort"> = {
  isShort: true,
  reserve: () => Promise.resolve(undefined),
};

async function makeFills(test: AfterTest) {
  const { store } = await makeStore(test);
  const index = {
    getBlob: () => Promise.resolve(undefined),
    findDescriptor: () => Promise.resolve(undefined),
  };
  const fills = new Fills({
    store,
    // Other methods of the index are used for stored blobs only.
    index: index as unknown as MetadataIndex,
    clock: new FakeClock(),
    log: createLogger({ level: "fatal" }, { write: () => {} }),
    metrics: createMetrics("test"),
    room: NO_ROOM,
    maxFills: () => 10,
    isSoleUpstream: () => true,
  });
  const body = new HandFedUpstream();
  const client = {
    openBlob: (_repository: string, _digest: string, options: never) =>
      body.open(options),
  };
  const upstream = {
    name: KEY.upstream,
    metricLabel: KEY.upstream,
    concurrency: 0,
    client,
  } as unknown as MirroredUpstream;
  return { fills, body, upstream };
}

void describe("fills that find no room when the upstream answers", () => {
  void it("end if no client reads them, and never wait for each other's end", async (test) => {
    const { fills, body, upstream } = await makeFills(test);
    const blobs = ["first", "second"].map((seed) => blobOf(seed, 200_000));
    const started = blobs.map(({ digest }) =>
      fills.start(upstream, KEY, digest),
    );
    while (body.opened.length < started.length) {
      await new Promise(setImmediate);
    }
    for (const { bytes } of blobs) {
      body.answer(() => ({ sizeBytes: bytes.length }));
    }
    await Promise.all(started.map(({ ended }) => ended));
    for (const { digest } of blobs) {
      assert.equal(fills.get(KEY.upstream, digest), undefined);
    }
  });
});
