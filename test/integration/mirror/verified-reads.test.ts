import assert from "node:assert/strict";
import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Barrier } from "../../support/barrier.ts";
import { buildImage, seededBlob } from "../../support/image-builder.ts";
import {
  cacheStatusOf,
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { readParts } from "../../support/multipart.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import type { AfterTest } from "../../support/temp-dir.ts";

const LARGE = seededBlob("verified reads", 3_000_000);
const SMALL = seededBlob("verified reads, small", 40_000);
const IMAGE = buildImage({ seed: "verified reads", layers: [LARGE, SMALL] });
const LARGE_PATH = `/v2/a/blobs/${LARGE.digest}`;
const DAY_MS = 24 * 60 * 60 * 1000;
const SCRUB = { dailyShare: 0, onReadMs: 7 * DAY_MS };

async function setUp(
  test: AfterTest,
  trustedProxies: readonly string[] = [],
): Promise<{ upstream: ScriptedUpstream; mirror: TestMirror }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("a", IMAGE, "v");
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    config: { scrub: SCRUB, trustedProxies },
  });
  await pullImage(mirror, "a", "v");
  await mirror.settled();
  upstream.forgetRequests();
  return { upstream, mirror };
}

/** Flips a bit of the middle byte. */
function rot(file: string): void {
  const bytes = readFileSync(file);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  writeFileSync(file, bytes);
}

function verifications(mirror: TestMirror, outcome: string): Promise<number> {
  return mirror.metric(
    `entrepot_read_verifications_total{outcome="${outcome}"}`,
  );
}

async function verified(
  mirror: TestMirror,
  outcome: string,
  count: number,
): Promise<void> {
  while ((await verifications(mirror, outcome)) < count) await nextTurn();
}

void describe("a stored blob with a flipped bit", () => {
  for (const blob of [LARGE, SMALL]) {
    void it(`of ${blob.sizeBytes} bytes is repaired for a client that requests it again`, async (test) => {
      const { upstream, mirror } = await setUp(test);
      rot(mirror.blobFile(blob.digest));
      const got = await mirror.get(`/v2/a/blobs/${blob.digest}`);
      assert.deepEqual(
        [got.status, got.end, got.sha256],
        [200, "complete", blob.digest],
      );
      assert.equal(
        cacheStatusOf(got)?.startsWith("fwd=miss; fwd-status=200") ||
          cacheStatusOf(got) === "fwd=miss; collapsed",
        true,
      );
      await mirror.settled();
      assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
      assert.equal(await verifications(mirror, "wrong"), 1);
      assert.equal(
        await mirror.metric(
          'entrepot_scrub_findings_total{code="blob-corrupt"}',
        ),
        1,
      );
      assert.ok(
        mirror.log.some(
          (line) =>
            line["msg"] === "scrub found faulty content" &&
            line["digest"] === blob.digest,
        ),
      );
      const hit = await mirror.get(`/v2/a/blobs/${blob.digest}`);
      assert.deepEqual([cacheStatusOf(hit), hit.sha256], ["hit", blob.digest]);
    });
  }

  void it("is repaired for `bytes=0-` as well, but not for a smaller range", async (test) => {
    const { mirror } = await setUp(test);
    rot(mirror.blobFile(LARGE.digest));
    await mirror.get(LARGE_PATH, { Range: "bytes=100-199" });
    assert.equal(await verifications(mirror, "wrong"), 0);
    const got = await mirror.get(LARGE_PATH, { Range: "bytes=0-" });
    assert.equal(got.sha256, LARGE.digest);
    assert.equal(await verifications(mirror, "wrong"), 1);
  });

  void it("is repaired for a client that requests the same ranges of it again", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.restart();
    rot(mirror.blobFile(LARGE.digest));
    const middle = LARGE.sizeBytes >> 1;
    const headers = { Range: `bytes=0-99,${middle}-${middle + 99}` };
    const wanted = [LARGE.read(0, 100), LARGE.read(middle, 100)];
    const isRight = async (): Promise<boolean> => {
      const got = await mirror.get(LARGE_PATH, headers);
      return readParts(got).every(
        ({ bytes }, i) => wanted[i]?.equals(bytes) === true,
      );
    };
    assert.equal(await isRight(), false);
    assert.equal(await isRight(), true);
    assert.equal(await verifications(mirror, "wrong"), 1);
  });

  void it("is not served while the mirror is offline", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.reload({ offline: true });
    rot(mirror.blobFile(LARGE.digest));
    assert.equal((await mirror.get(LARGE_PATH)).status, 404);
    assert.equal((await mirror.get(LARGE_PATH)).status, 404);
  });

  void it("is cut for other clients that are reading it", async (test) => {
    const { mirror } = await setUp(test);
    rot(mirror.blobFile(LARGE.digest));
    const barrier = new Barrier();
    const slow = mirror.start(LARGE_PATH, {
      headers: { Range: "bytes=1-" },
      pause: { atByte: 1, barrier },
    });
    await slow.received(1);
    await mirror.get(LARGE_PATH);
    barrier.release();
    const got = await slow.response;
    // The kernel's buffers may already hold the rest.
    assert.ok(got.end === "fin" || got.bodyBytes === LARGE.sizeBytes - 1);
  });

  void it("is found in the background if its last verification is 7 days old", async (test) => {
    const { upstream, mirror } = await setUp(test);
    mirror.clock.advance(8 * DAY_MS);
    rot(mirror.blobFile(LARGE.digest));
    await mirror.get(LARGE_PATH);
    await verified(mirror, "wrong", 1);
    await upstream.arrived(1, { kind: "blob", method: "GET" });
    await mirror.settled();
    const got = await mirror.get(LARGE_PATH);
    assert.deepEqual([cacheStatusOf(got), got.sha256], ["hit", LARGE.digest]);
    assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
  });
});

void describe("a stored blob that another process changed", () => {
  void it("is repaired for the first client that requests the whole", async (test) => {
    const { upstream, mirror } = await setUp(test);
    const file = mirror.blobFile(LARGE.digest);
    rot(file);
    const written = new Date(mirror.clock.nowMs() + 5_000);
    utimesSync(file, written, written);
    await mirror.restart();
    mirror.clock.advance(10_000);
    const got = await mirror.get(LARGE_PATH);
    assert.deepEqual([got.status, got.sha256], [200, LARGE.digest]);
    await mirror.settled();
    assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
  });

  void it("is found in the background after a request of a range", async (test) => {
    const { mirror } = await setUp(test);
    const file = mirror.blobFile(LARGE.digest);
    rot(file);
    const written = new Date(mirror.clock.nowMs() + 5_000);
    utimesSync(file, written, written);
    mirror.clock.advance(10_000);
    await mirror.get(LARGE_PATH, { Range: "bytes=0-9" });
    await verified(mirror, "wrong", 1);
  });
});

void describe("a verification", () => {
  void it("is recorded in the index: a restart does not repeat it", async (test) => {
    const { mirror } = await setUp(test);
    mirror.clock.advance(8 * DAY_MS);
    await mirror.get(LARGE_PATH);
    await verified(mirror, "right", 1);
    await mirror.restart();
    await mirror.get(LARGE_PATH);
    // One at a time: a verification of the first blob would be finished by then.
    mirror.clock.advance(1);
    await mirror.get(`/v2/a/blobs/${SMALL.digest}`);
    await verified(mirror, "right", 1);
    await mirror.get(`/v2/a/blobs/${IMAGE.config.digest}`);
    await verified(mirror, "right", 2);
    assert.equal(await verifications(mirror, "right"), 2);
  });

  void it("is off with `scrub.onRead: off`, except for a client that requests the blob again", async (test) => {
    const { mirror } = await setUp(test);
    await mirror.reload({ scrub: { dailyShare: 0, onReadMs: Infinity } });
    mirror.clock.advance(100 * DAY_MS);
    await mirror.get(LARGE_PATH);
    assert.equal(await verifications(mirror, "right"), 0);
    await mirror.get(LARGE_PATH);
    assert.equal(await verifications(mirror, "right"), 1);
  });

  void it("runs once for a hundred clients of one address, and again after two minutes", async (test) => {
    const { mirror } = await setUp(test);
    const crowd = await Promise.all(
      Array.from({ length: 100 }, () => mirror.get(LARGE_PATH)),
    );
    for (const got of crowd) assert.equal(got.sha256, LARGE.digest);
    for (let i = 0; i < 5; i++) {
      mirror.clock.advance(20_000);
      await mirror.get(LARGE_PATH);
    }
    assert.equal(await verifications(mirror, "right"), 1);
    mirror.clock.advance(20_000);
    await mirror.get(LARGE_PATH);
    assert.equal(await verifications(mirror, "right"), 2);
  });

  void it("is not started by another client, nor after two minutes", async (test) => {
    const { mirror } = await setUp(test, ["127.0.0.1"]);
    const ask = (client: string) =>
      mirror.get(LARGE_PATH, { "X-Forwarded-For": client });
    await ask("10.0.0.1");
    await ask("10.0.0.2");
    assert.equal(await verifications(mirror, "right"), 0);
    mirror.clock.advance(120_000);
    await ask("10.0.0.1");
    assert.equal(await verifications(mirror, "right"), 0);
    await ask("10.0.0.1");
    assert.equal(await verifications(mirror, "right"), 1);
    // The verification was later than this client's first request.
    await ask("10.0.0.2");
    await ask("10.0.0.2");
    assert.equal(await verifications(mirror, "right"), 1);
  });

  void it("is not repeated after a scrub", async (test) => {
    const { mirror } = await setUp(test);
    mirror.clock.advance(8 * DAY_MS);
    await mirror.operate("POST", "/scrub", {});
    await mirror.get(LARGE_PATH);
    await mirror.get(`/v2/a/blobs/${SMALL.digest}`);
    assert.equal(await verifications(mirror, "right"), 0);
  });
});
