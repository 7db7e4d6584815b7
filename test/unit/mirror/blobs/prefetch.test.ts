import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { keyOf } from "../../../contract/metadata-index-contract.ts";
import { Blobs } from "../../../../src/mirror/blobs/blobs.ts";
import type {
  Fill,
  FollowedEnd,
} from "../../../../src/mirror/fills/running-fill.ts";
import { systemClock } from "../../../../src/telemetry/clock.ts";
import { UpstreamError } from "../../../../src/wire/errors.ts";
import { buildImage } from "../../../support/image-builder.ts";
import { ScriptedRegistry } from "../../../support/scripted-client.ts";

const app = keyOf("docker.io", "library/app");
const [layer] = buildImage({ seed: "prefetch" }).layers;
assert(layer !== undefined);
const { digest, sizeBytes } = layer;

/** Prefetches a blob whose fills end as given; one that ends as `stored` stores it. */
async function prefetch(
  ...ends: readonly (FollowedEnd | "stored" | Error)[]
): Promise<{ readonly isStored: boolean; readonly started: number }> {
  let started = 0;
  let isStored = false;
  const start = (): Fill => ({
    digest,
    key: app,
    ended: Promise.resolve(),
    openReader: () => assert.fail("opened a reader, which counts as a client"),
    takeSideRange: () => undefined,
    follow: async () => {
      const end = ends[started] ?? "ended";
      started += 1;
      if (end instanceof Error) throw end;
      isStored = end === "stored";
      return end === "stored" ? "ended" : end;
    },
  });
  const row = {
    digest,
    sizeBytes,
    mediaType: undefined,
    storedAtMs: 0,
    verifiedAtMs: 0,
  };
  const parts = {
    index: {
      recallLinkedBlob: () => undefined,
      getLinkedBlob: async () => (isStored ? row : undefined),
      getUpstreamBlob: async () => (isStored ? row : undefined),
    },
    fills: { get: () => undefined, isBanned: () => false, start },
    negative: { assertNone: () => undefined, note: () => undefined },
    clock: systemClock,
    isOffline: () => false,
  };
  const blobs = new Blobs(
    parts as unknown as ConstructorParameters<typeof Blobs>[0],
  );
  const upstream = new ScriptedRegistry().upstream("docker.io");
  const stored = await blobs.prefetch(upstream, app, digest);
  return { isStored: stored, started };
}

void describe("a blob that no client has requested", () => {
  for (const [ends, want] of [
    [["stored"], { isStored: true, started: 1 }],
    [["ended"], { isStored: false, started: 1 }],
    [
      ["gave-way", "gave-way", "gave-way", "gave-way", "stored"],
      { isStored: true, started: 5 },
    ],
    [["refused", "stored"], { isStored: true, started: 2 }],
    [
      ["refused", "refused", "refused", "stored"],
      { isStored: false, started: 3 },
    ],
  ] as const) {
    void it(`is fetched by fills that end as ${ends.join(", ")}`, async () => {
      assert.deepEqual(await prefetch(...ends), want);
    });
  }

  void it("fails as its download does", async () => {
    const error = new UpstreamError("interrupted", "cut", {
      upstream: "docker.io",
    });
    await assert.rejects(prefetch("gave-way", error), error);
  });
});
