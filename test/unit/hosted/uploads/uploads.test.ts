import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { describe, it, type TestContext } from "node:test";
import { setImmediate } from "node:timers/promises";
import * as fc from "fast-check";
import { UploadRefusal } from "../../../../src/hosted/uploads/upload-refusal.ts";
import { type Digest, digestOf } from "../../../../src/oci/digest.ts";
import { RegistryError } from "../../../../src/oci/errors.ts";
import { FaultyFileSystem } from "../../../support/faulty-file-system.ts";
import { seededBytes } from "../../../support/seeded-bytes.ts";
import {
  hostedRepository,
  repositoryKeyOf,
  ScriptedBody,
  uploadRequest,
  UploadScene,
} from "../../../support/upload-scene.ts";

const APP = hostedRepository("team/app");
const OTHER = hostedRepository("team/other");
const BYTES = Buffer.from("some bytes of a layer");
const DIGEST = digestOf(BYTES);
const BIG = seededBytes("upload", 5_000_000).read(0, 5_000_000);

/** Asserts that a request is refused. @returns the bytes that the refusal states */
async function refused(
  work: Promise<unknown>,
  code: string,
  status?: number,
): Promise<number | undefined> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  const inner = error instanceof UploadRefusal ? error.error : error;
  assert(inner instanceof RegistryError, `got ${String(error)}`);
  assert.equal(inner.code, code);
  if (status !== undefined) assert.equal(inner.status, status);
  return error instanceof UploadRefusal ? error.writtenBytes : undefined;
}

function beginWhole(scene: UploadScene, digest: Digest, body: ScriptedBody) {
  return scene.uploads.begin(uploadRequest(APP, body), {
    digest,
    mount: undefined,
    algorithm: "sha256",
  });
}

/** Makes the index answer late: its rows are written, and not synced before the release. */
function holdRecords(test: TestContext, { index }: UploadScene) {
  const recording = Promise.withResolvers<void>();
  const again = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const record = index.recordHostedBlob;
  let isRecording = false;
  test.mock.method(
    index,
    "recordHostedBlob",
    async (...input: Parameters<typeof record>) => {
      const outcome = await record(...input);
      if (outcome === "stored") index.usedBytes += input[1].sizeBytes;
      if (isRecording) again.resolve();
      isRecording = true;
      recording.resolve();
      await held.promise;
      return outcome;
    },
  );
  return {
    recording: recording.promise,
    /** A second one. */
    recordingAgain: again.promise,
    release: held.resolve,
  };
}

void describe("an upload", () => {
  void it("is stored by one request", async (test) => {
    const scene = await UploadScene.open(test);
    for (const bytes of [BYTES, BIG, Buffer.alloc(0)]) {
      for (const algorithm of ["sha256", "sha512"] as const) {
        const digest = digestOf(bytes, algorithm);
        const started = await beginWhole(scene, digest, ScriptedBody.of(bytes));
        assert.deepEqual(started, { kind: "stored", digest });
        assert.deepEqual(await scene.stored(digest), bytes);
      }
    }
    assert.deepEqual(await scene.partials(), []);
    assert.equal(scene.events.length, 6);
    assert.equal(scene.index.uploads.size, 0);
  });

  void it("is stored in chunks of any size, by either algorithm", async (test) => {
    const scene = await UploadScene.open(test);
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 3000 }),
        fc.array(fc.nat(1500), { maxLength: 6 }),
        fc.constantFrom("sha256" as const, "sha512" as const),
        fc.constantFrom("sha256" as const, "sha512" as const),
        fc.boolean(),
        async (content, cuts, first, last, isRanged) => {
          const bytes = Buffer.from(content);
          const digest = digestOf(bytes, last);
          const id = await scene.begin(APP, first);
          let at = 0;
          for (const cut of cuts) {
            const chunk = bytes.subarray(at, at + cut);
            const range =
              isRanged && chunk.length > 0
                ? { first: at, last: at + chunk.length - 1 }
                : undefined;
            const progress = await scene.append(APP, id, chunk, range);
            at += chunk.length;
            assert.equal(progress.writtenBytes, at);
          }
          await scene.finish(APP, id, digest, bytes.subarray(at));
          assert.deepEqual(await scene.stored(digest), bytes);
        },
      ),
      { numRuns: 100, seed: 12 },
    );
    assert.deepEqual(await scene.partials(), []);
    assert.equal(scene.index.uploads.size, 0);
  });

  void it("is recorded with whole milliseconds, although the monotonic clock has fractions", async (test) => {
    const scene = await UploadScene.open(test);
    let ticks = 0;
    // Moves at every read, as the clock of the system does.
    test.mock.method(scene.clock, "monotonicMs", () => (ticks += 0.3));
    for (let step = 0; step < 5; step++) await scene.begin(APP);
    assert.equal(scene.index.uploads.size, 5);
    for (const { startedAtMs, touchedAtMs } of scene.index.uploads.values()) {
      assert.ok(Number.isInteger(startedAtMs) && Number.isInteger(touchedAtMs));
    }
  });

  void it("refuses chunks out of order, and goes on from its offset", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    const chunk = (first: number, last: number) =>
      scene.append(APP, id, BYTES.subarray(first, last + 1), { first, last });
    assert.equal(await refused(chunk(5, 9), "RANGE_INVALID", 416), 0);
    await chunk(0, 9);
    assert.equal(await refused(chunk(5, 14), "RANGE_INVALID", 416), 10);
    assert.equal(await refused(chunk(11, 14), "RANGE_INVALID", 416), 10);
    assert.equal(await refused(chunk(10, 9), "RANGE_INVALID", 416), 10);
    const rest = BYTES.subarray(10);
    const wrong = { first: 9, last: 9 + rest.length - 1 };
    const late = scene.finish(APP, id, DIGEST, rest, wrong);
    assert.equal(await refused(late, "RANGE_INVALID", 416), 10);
    const right = { first: 10, last: BYTES.length - 1 };
    await scene.finish(APP, id, DIGEST, rest, right);
    assert.deepEqual(await scene.stored(DIGEST), BYTES);
  });

  void it("refuses a length that differs from the range", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    const lies = [
      { first: 0, last: 3 },
      { first: 0, last: 30 },
    ];
    for (const range of lies) {
      const work = scene.append(APP, id, BYTES, range);
      assert.equal(await refused(work, "SIZE_INVALID", 400), 0);
    }
    // Without an announced length the lie is noticed only in the body.
    for (const range of lies) {
      const lying = await scene.begin(APP);
      const body = ScriptedBody.of(BYTES, false);
      const request = uploadRequest(APP, body, range);
      const work = scene.uploads.append(lying, request);
      assert.equal(await refused(work, "SIZE_INVALID", 400), undefined);
      await refused(
        scene.uploads.status(APP, lying),
        "BLOB_UPLOAD_UNKNOWN",
        404,
      );
    }
    assert.deepEqual(await scene.partials(), []);
    assert.deepEqual([...scene.index.uploads.keys()], [id]);
  });

  void it("leaves nothing if its digest is wrong", async (test) => {
    const scene = await UploadScene.open(test);
    const wrong = digestOf(Buffer.from("other bytes"));
    const id = await scene.begin(APP);
    await scene.append(APP, id, BYTES);
    await refused(scene.finish(APP, id, wrong), "DIGEST_INVALID", 400);
    await refused(scene.uploads.status(APP, id), "BLOB_UPLOAD_UNKNOWN", 404);
    const body = ScriptedBody.of(BYTES);
    await refused(beginWhole(scene, wrong, body), "DIGEST_INVALID", 400);
    assert.deepEqual(await scene.partials(), []);
    assert.equal(scene.index.uploads.size, 0);
    assert.equal(scene.index.rows.size, 0);
    assert.deepEqual(scene.events, []);
  });

  void it("is known in its repository only", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    const elsewhere = hostedRepository("team/app", { name: "second" });
    for (const repository of [OTHER, elsewhere]) {
      const work = scene.append(repository, id, BYTES);
      await refused(work, "BLOB_UPLOAD_UNKNOWN", 404);
      const cancel = scene.uploads.cancel(repository, id);
      await refused(cancel, "BLOB_UPLOAD_UNKNOWN", 404);
    }
    for (const foreign of ["", "x", "../../etc/passwd", "A".repeat(36)]) {
      const work = scene.uploads.status(APP, foreign);
      await refused(work, "BLOB_UPLOAD_UNKNOWN", 404);
    }
    assert.equal((await scene.uploads.status(APP, id)).writtenBytes, 0);
  });

  void it("is cancelled, also while a request sends to it", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    const body = new ScriptedBody().give(BYTES);
    const running = scene.uploads.append(id, uploadRequest(APP, body));
    const outcome = refused(running, "BLOB_UPLOAD_INVALID", 400);
    await body.awaited;
    await scene.uploads.cancel(APP, id);
    await outcome;
    await refused(scene.uploads.cancel(APP, id), "BLOB_UPLOAD_UNKNOWN", 404);
    assert.deepEqual(await scene.partials(), []);
    assert.equal(scene.index.uploads.size, 0);
  });

  void it("is not cancelled if the request that is waited for completed it", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    await scene.append(APP, id, BYTES);
    const { recording, release } = holdRecords(test, scene);
    const finished = scene.finish(APP, id, DIGEST);
    await recording;
    const cancelled = refused(
      scene.uploads.cancel(APP, id),
      "BLOB_UPLOAD_UNKNOWN",
      404,
    );
    release();
    await finished;
    await cancelled;
    assert.deepEqual(await scene.stored(DIGEST), BYTES);
  });

  void it("accepts one request at a time", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    const body = new ScriptedBody().give(BYTES.subarray(0, 4));
    const running = scene.uploads.append(id, uploadRequest(APP, body));
    await body.awaited;
    const second = scene.append(APP, id, BYTES);
    assert.equal(await refused(second, "RANGE_INVALID", 416), 4);
    assert.equal((await scene.uploads.status(APP, id)).writtenBytes, 4);
    body.give(BYTES.subarray(4)).end();
    assert.equal((await running).writtenBytes, BYTES.length);
    await scene.finish(APP, id, DIGEST);
    assert.deepEqual(await scene.stored(DIGEST), BYTES);
  });

  void it("goes on with another request if the client of the first is gone or silent", async (test) => {
    const scene = await UploadScene.open(test);
    for (const isGone of [true, false]) {
      const id = await scene.begin(APP);
      const body = new ScriptedBody().give(BYTES.subarray(0, 4));
      const first = scene.uploads.append(id, uploadRequest(APP, body));
      const outcome = refused(first, "BLOB_UPLOAD_INVALID", 400);
      await body.awaited;
      if (isGone) body.cut("left");
      else scene.clock.advance(10_001);
      const range = { first: 4, last: BYTES.length - 1 };
      await scene.append(APP, id, BYTES.subarray(4), range);
      assert.equal(await outcome, 4);
      await scene.finish(APP, id, DIGEST);
      assert.deepEqual(await scene.stored(DIGEST), BYTES);
      scene.index.rows.clear();
    }
  });

  void it("keeps what an interrupted request stored", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    const body = new ScriptedBody(BYTES.length).give(BYTES.subarray(0, 7));
    const running = scene.uploads.append(id, uploadRequest(APP, body));
    const outcome = refused(running, "BLOB_UPLOAD_INVALID", 408);
    await body.awaited;
    body.cut("stalled");
    assert.equal(await outcome, 7);
    await scene.finish(APP, id, DIGEST, BYTES.subarray(7));
    assert.deepEqual(await scene.stored(DIGEST), BYTES);
  });

  void it("survives a restart of the process", async (test) => {
    const faults = new FaultyFileSystem();
    const { fileSystem } = faults;
    const first = await UploadScene.open(test, { fileSystem });
    const id = await first.begin(APP);
    await first.append(APP, id, BIG.subarray(0, 3_000_000));
    assert.equal(faults.openFiles, 1);
    await first.close();
    assert.equal(faults.openFiles, 0);
    const { root } = first.layout;
    const { index } = first;
    const second = await UploadScene.open(test, { root, index });
    const status = await second.uploads.status(APP, id);
    assert.equal(status.writtenBytes, 3_000_000);
    await refused(second.uploads.status(OTHER, id), "BLOB_UPLOAD_UNKNOWN");
    await second.append(APP, id, BIG.subarray(3_000_000));
    await second.finish(APP, id, digestOf(BIG));
    assert.deepEqual(await second.stored(digestOf(BIG)), BIG);
    assert.equal(index.uploads.size, 0);
  });

  void it("of the same blob by two clients ends right for both", async (test) => {
    const scene = await UploadScene.open(test);
    const digest = digestOf(BIG);
    await Promise.all(
      [APP, OTHER].map(async (repository) => {
        const id = await scene.begin(repository);
        await scene.append(repository, id, BIG);
        await scene.finish(repository, id, digest);
        assert.deepEqual(await scene.stored(digest), BIG);
      }),
    );
    assert.equal(scene.index.links.size, 2);
    assert.deepEqual(await scene.partials(), []);
  });

  void it("is not open longer than it is used", async (test) => {
    const faulty = new FaultyFileSystem();
    const { fileSystem } = faulty;
    const scene = await UploadScene.open(test, { fileSystem });
    scene.uploads.start();
    const id = await scene.begin(APP);
    await scene.append(APP, id, BYTES.subarray(0, 4));
    assert.equal(faulty.openFiles, 1);
    scene.clock.advance(30_000);
    await scene.sweep();
    // The thread that hashes gives the file back.
    while (faulty.openFiles > 0) await setImmediate();
    await scene.finish(APP, id, DIGEST, BYTES.subarray(4));
    assert.deepEqual(await scene.stored(DIGEST), BYTES);
  });
});

void describe("the limits of uploads", () => {
  void it("bound the number of open ones", async (test) => {
    const scene = await UploadScene.open(test, { maxOpen: () => 2 });
    scene.uploads.start();
    const ids = [await scene.begin(APP), await scene.begin(OTHER)];
    await refused(scene.begin(APP), "TOOMANYREQUESTS", 429);
    scene.clock.advance(30_000);
    await scene.sweep();
    const third = await scene.begin(APP);
    await scene.append(APP, ids[0] ?? "", BYTES);
    const full = scene.append(OTHER, ids[1] ?? "", BYTES);
    await refused(full, "TOOMANYREQUESTS", 429);
    await scene.uploads.cancel(APP, third);
    await scene.append(OTHER, ids[1] ?? "", BYTES);
  });

  void it("bound the number of idle ones: one without bytes gives way", async (test) => {
    const scene = await UploadScene.open(test, { maxUploads: 2 });
    const full = await scene.begin(APP);
    await scene.append(APP, full, BYTES);
    const empty = await scene.begin(APP);
    const third = await scene.begin(APP);
    await refused(scene.uploads.status(APP, empty), "BLOB_UPLOAD_UNKNOWN");
    await scene.append(APP, third, BYTES);
    await refused(scene.begin(APP), "TOOMANYREQUESTS", 429);
    assert.equal(scene.index.uploads.size, 2);
  });

  void it("drop one that received nothing for too long, also of an earlier process", async (test) => {
    const first = await UploadScene.open(test);
    const old = await first.begin(APP);
    await first.append(APP, old, BYTES);
    await first.close();
    const { index, layout } = first;
    const second = await UploadScene.open(test, { root: layout.root, index });
    second.uploads.start();
    await second.sweep();
    const fresh = await second.begin(OTHER);
    await second.append(OTHER, fresh, BYTES);
    const expiryMs = 24 * 3_600_000;
    second.clock.advance(expiryMs - 1);
    await second.append(OTHER, fresh, BYTES);
    second.clock.advance(1);
    await second.sweep();
    await refused(second.uploads.status(APP, old), "BLOB_UPLOAD_UNKNOWN", 404);
    assert.equal(
      (await second.uploads.status(OTHER, fresh)).writtenBytes,
      2 * BYTES.length,
    );
    assert.deepEqual(await second.partials(), [`upload-${fresh}`]);
    assert.deepEqual([...index.uploads.keys()], [fresh]);
  });

  void it("count the time without bytes before a restart", async (test) => {
    const hourMs = 3_600_000;
    const first = await UploadScene.open(test);
    const id = await first.begin(APP);
    first.clock.advance(2 * hourMs);
    await first.append(APP, id, BYTES);
    first.clock.advance(20 * hourMs);
    await first.close();
    const { index, layout } = first;
    const second = await UploadScene.open(test, { root: layout.root, index });
    second.clock.advance(22 * hourMs);
    second.uploads.start();
    await second.sweep();
    second.clock.advance(4 * hourMs - 1);
    await second.sweep();
    const { writtenBytes } = await second.uploads.status(APP, id);
    assert.equal(writtenBytes, BYTES.length);
    await second.append(APP, id, Buffer.alloc(0));
    second.clock.advance(1);
    await second.sweep();
    await refused(second.uploads.status(APP, id), "BLOB_UPLOAD_UNKNOWN", 404);
    assert.deepEqual(await second.partials(), []);
  });

  void it("judge the quota before and while bytes arrive, and at the end", async (test) => {
    const scene = await UploadScene.open(test);
    const quota = hostedRepository("team/app", { quotaBytes: 100 });
    scene.index.usedBytes = 80;
    const id = await scene.begin(quota);
    const work = scene.append(quota, id, Buffer.alloc(21));
    await refused(work, "DENIED", 403);
    await refused(scene.uploads.status(quota, id), "BLOB_UPLOAD_UNKNOWN");

    const chunked = await scene.begin(quota);
    const body = new ScriptedBody().give(Buffer.alloc(15));
    const running = scene.uploads.append(chunked, uploadRequest(quota, body));
    await body.awaited;
    // Bytes of another upload count too.
    const second = await scene.begin(quota);
    await refused(scene.append(quota, second, Buffer.alloc(6)), "DENIED", 403);
    body.give(Buffer.alloc(6));
    await refused(running, "DENIED", 403);

    const last = await scene.begin(quota);
    await scene.append(quota, last, BYTES.subarray(0, 10));
    scene.index.usedBytes = 95;
    const digest = digestOf(BYTES.subarray(0, 10));
    await refused(scene.finish(quota, last, digest), "DENIED", 403);
    assert.equal(scene.index.rows.size, 0);
    assert.deepEqual(await scene.partials(), []);
    assert.deepEqual(await readdir(scene.layout.blobFolder("sha256")), []);
    scene.index.usedBytes = 80;
    const fits = await scene.begin(quota);
    await scene.append(quota, fits, Buffer.alloc(20));
  });

  void it("count towards the quota once while they are recorded", async (test) => {
    const scene = await UploadScene.open(test);
    const quota = hostedRepository("team/app", { quotaBytes: 30 });
    const chunks = [BYTES.subarray(0, 15), BYTES.subarray(1, 16)] as const;
    const first = await scene.begin(quota);
    await scene.append(quota, first, chunks[0]);
    const second = await scene.begin(quota);
    await scene.append(quota, second, chunks[1]);
    const { recording, recordingAgain, release } = holdRecords(test, scene);
    const finished = scene.finish(quota, first, digestOf(chunks[0]));
    await recording;
    // The row of the first one is there, and its request has not ended.
    const both = scene.finish(quota, second, digestOf(chunks[1]));
    await recordingAgain;
    release();
    await finished;
    await both;
    assert.equal(scene.index.usedBytes, 30);
    assert.equal(scene.uploads.reservedBytes("local"), 0);
  });

  void it("that are refused for the quota do not count while they are dropped", async (test) => {
    const scene = await UploadScene.open(test);
    const quota = hostedRepository("team/app", { quotaBytes: 30 });
    const small = await scene.begin(quota);
    const large = await scene.begin(quota);
    const refusal = refused(
      scene.append(quota, large, Buffer.alloc(31)),
      "DENIED",
    );
    const progress = await scene.append(quota, small, BYTES);
    await refusal;
    assert.equal(progress.writtenBytes, BYTES.length);
  });

  void it("reserve room for the bytes, and refuse an upload without it", async (test) => {
    let freeBytes = 2_000_000;
    const asked: number[] = [];
    const room = {
      reserve: (bytes: number) => {
        asked.push(bytes);
        return Promise.resolve(
          bytes <= freeBytes ? { release: () => undefined } : undefined,
        );
      },
    };
    const scene = await UploadScene.open(test, { room });
    const id = await scene.begin(APP);
    const work = scene.append(APP, id, BIG);
    await refused(work, "UNAVAILABLE", 507);
    assert.equal(asked[0], BIG.length);
    await refused(scene.uploads.status(APP, id), "BLOB_UPLOAD_UNKNOWN", 404);

    const chunked = await scene.begin(APP);
    const body = ScriptedBody.of(BIG, false);
    const request = uploadRequest(APP, body);
    await refused(scene.uploads.append(chunked, request), "UNAVAILABLE", 507);
    freeBytes = 100_000_000;
    const again = await scene.begin(APP);
    await scene.append(APP, again, BIG);
    assert.deepEqual(await scene.partials(), [`upload-${again}`]);
  });
});

void describe("a failing storage", () => {
  void it("is answered 507 if it is full, and nothing is left", async (test) => {
    const faulty = new FaultyFileSystem();
    const { fileSystem } = faulty;
    const scene = await UploadScene.open(test, { fileSystem });
    for (const call of ["writev", "fdatasync", "rename"] as const) {
      const id = await scene.begin(APP);
      faulty.fail(call, "ENOSPC");
      const work = scene.finish(APP, id, DIGEST, BYTES);
      await refused(work, "UNAVAILABLE", 507);
      await refused(scene.uploads.status(APP, id), "BLOB_UPLOAD_UNKNOWN", 404);
      assert.deepEqual(await scene.partials(), []);
      assert.equal(scene.index.rows.size, 0);
    }
    assert.equal(faulty.openFiles, 0);
    assert.equal(scene.index.uploads.size, 0);
  });

  void it("is answered 503, and what it holds can be resumed", async (test) => {
    const faulty = new FaultyFileSystem();
    const { fileSystem } = faulty;
    const scene = await UploadScene.open(test, { fileSystem });
    const id = await scene.begin(APP);
    await scene.append(APP, id, BYTES.subarray(0, 9));
    faulty.fail("writev", "EIO");
    const work = scene.append(APP, id, BYTES.subarray(9));
    assert.equal(await refused(work, "UNAVAILABLE", 503), 9);
    await scene.finish(APP, id, DIGEST, BYTES.subarray(9));
    assert.deepEqual(await scene.stored(DIGEST), BYTES);
  });

  void it("of the index before the bytes are published keeps the upload", async (test) => {
    const scene = await UploadScene.open(test);
    const id = await scene.begin(APP);
    await scene.append(APP, id, BYTES);
    scene.index.failing.add("beginHostedWrite");
    const work = scene.finish(APP, id, DIGEST);
    assert.equal(await refused(work, "UNAVAILABLE", 503), BYTES.length);
    scene.index.failing.clear();
    await scene.finish(APP, id, DIGEST);
    assert.deepEqual(await scene.stored(DIGEST), BYTES);
  });

  void it("of the index is answered 503, and no blob without a row is left", async (test) => {
    const scene = await UploadScene.open(test);
    const { index } = scene;
    for (const method of ["recordHostedBlob", "putUpload", "getUpload"]) {
      index.failing.add(method);
      const work = async () => {
        const id = await scene.begin(APP);
        await scene.finish(APP, id, DIGEST, BYTES);
      };
      if (method !== "getUpload") await refused(work(), "UNAVAILABLE", 503);
      const unknown = crypto.randomUUID();
      await refused(
        scene.uploads.status(APP, unknown),
        method === "getUpload" ? "UNAVAILABLE" : "BLOB_UPLOAD_UNKNOWN",
      );
      index.failing.delete(method);
      assert.deepEqual(await readdir(scene.layout.blobFolder("sha256")), []);
    }
    assert.deepEqual(await scene.partials(), []);
  });
});

void describe("mounting", () => {
  const base = repositoryKeyOf("docker.io", "library/base");
  const mount = (
    scene: UploadScene,
    from: typeof base | undefined,
    mayPull: (key: typeof base) => boolean = () => true,
  ) =>
    scene.uploads.begin(uploadRequest(APP, new ScriptedBody(0).end()), {
      digest: undefined,
      mount: {
        digest: DIGEST,
        from: from === undefined ? undefined : [from],
        mayPull,
      },
      algorithm: "sha256",
    });

  void it("links a blob of a mirrored or hosted repository", async (test) => {
    const scene = await UploadScene.open(test);
    await scene.blobs.put(DIGEST, BYTES);
    scene.index.addBlob(base, DIGEST, BYTES.length);
    for (const from of [base, undefined]) {
      const started = await mount(scene, from);
      assert.deepEqual(started, { kind: "stored", digest: DIGEST });
      assert.notEqual(
        await scene.index.getLinkedBlob(APP.key, DIGEST),
        undefined,
      );
      scene.index.links.delete(`${APP.key.upstream} ${APP.key.repository}`);
    }
    assert.deepEqual(
      scene.events.map(({ action, from, sizeBytes }) => ({
        action,
        from,
        sizeBytes,
      })),
      [
        { action: "mount", from: base, sizeBytes: BYTES.length },
        { action: "mount", from: base, sizeBytes: BYTES.length },
      ],
    );
  });

  void it("starts an upload if the blob is not there, or may not be pulled", async (test) => {
    const scene = await UploadScene.open(test);
    assert.equal((await mount(scene, base)).kind, "open");
    assert.equal((await mount(scene, undefined)).kind, "open");
    scene.index.addBlob(base, DIGEST, BYTES.length);
    // The row is there, its bytes are not.
    assert.equal((await mount(scene, base)).kind, "open");
    await scene.blobs.put(DIGEST, BYTES);
    assert.equal((await mount(scene, base, () => false)).kind, "open");
    assert.equal((await mount(scene, undefined, () => false)).kind, "open");
    assert.equal((await mount(scene, OTHER.key)).kind, "open");
    assert.equal((await mount(scene, base)).kind, "stored");
  });
});
