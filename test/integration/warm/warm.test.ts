import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Job } from "../../../src/images/jobs/job.ts";
import type { ImageDetail } from "../../../src/images/images.ts";
import { CRON_CHECK_MS } from "../../../src/telemetry/cron-runs.ts";
import type { AfterTest } from "../../support/after-test.ts";
import { AuditFile } from "../../support/audit-file.ts";
import { Barrier } from "../../support/barrier.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
} from "../../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  type TestMirrorOptions,
  upstreamOf,
} from "../../support/mirror-harness.ts";
import { pullImage } from "../../support/pull-image.ts";
import { ScriptedUpstream } from "../../support/scripted-upstream.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { jobUntil, planWarm, startWarm, warm } from "../../support/warm-job.ts";

const HUB = "docker.io";
const QUAY = "quay.io";
const image = buildImage({ seed: "warm", layers: [3_000, 70_000] });
const other = buildImage({ seed: "warm-other", layers: [5_000] });
const multi = buildMultiArch({ seed: "warm-multi", layers: [4_000] });

interface Scene {
  readonly hub: ScriptedUpstream;
  readonly quay: ScriptedUpstream;
  readonly mirror: TestMirror;
}

/** A mirror of two registries with images in each. */
async function openScene(
  test: AfterTest,
  options: TestMirrorOptions = {},
): Promise<Scene> {
  const hub = await ScriptedUpstream.start(test);
  const quay = await ScriptedUpstream.start(test);
  hub.content.addImage("library/app", image, "1");
  hub.content.addIndex("library/multi", multi, "1");
  for (const tag of ["1.0", "1.1", "2.0"]) {
    quay.content.addImage("team/app", other, tag);
  }
  const mirror = await startMirror(
    test,
    [
      upstreamOf(hub, { name: HUB, isDefault: true, libraryPrefix: true }),
      upstreamOf(quay, { name: QUAY, isDefault: false }),
    ],
    options,
  );
  return { hub, quay, mirror };
}

const REFS = [
  "app:1",
  "multi:1",
  "quay.io/team/app:1.0",
  "quay.io/team/app:2.0",
];

function assertDone(job: Job, images: number): void {
  assert.deepEqual(
    [job.state, job.done, job.total, job.errors],
    ["done", images, images, []],
  );
}

void describe("a warm job", () => {
  void it("makes images of several registries present, which are pulled with their upstreams off", async (test) => {
    const { hub, quay, mirror } = await openScene(test);
    const job = await warm(mirror, { refs: REFS });
    assertDone(job, 4);
    assert.ok(
      job.bytes > 70_000 && job.bytes === job.bytesTotal,
      `${job.bytes}`,
    );
    await hub.stop();
    await quay.stop();
    await pullImage(mirror, "library/app", "1");
    await pullImage(mirror, "library/multi", "1");
    await pullImage(mirror, "quay.io/team/app", "2.0");
    const { body } = await mirror.operate("GET", "/images/multi:1");
    assert.deepEqual(
      (body as ImageDetail).platforms.map(({ complete }) => complete),
      [true, true],
    );
  });

  void it("costs one HEAD for each tag the second time, and no byte of an upstream", async (test) => {
    const { hub, quay, mirror } = await openScene(test);
    await warm(mirror, { refs: REFS });
    hub.forgetRequests();
    quay.forgetRequests();
    assertDone(await warm(mirror, { refs: REFS }), 4);
    for (const upstream of [hub, quay]) {
      assert.equal(upstream.count({ kind: "manifest", method: "HEAD" }), 2);
      assert.equal(upstream.count(), 2);
      assert.equal(upstream.bytesSent(), 0);
    }
  });

  void it("follows a tag that moved, and fetches only the new parts", async (test) => {
    const { hub, mirror } = await openScene(test);
    await warm(mirror, { refs: ["app:1"] });
    const moved = buildImage({ seed: "warm", layers: [3_000, 70_001] });
    hub.content.addImage("library/app", moved, "1");
    hub.forgetRequests();
    assertDone(await warm(mirror, { refs: ["app:1"] }), 1);
    const shared = image.layers[0]?.digest ?? "";
    assert.equal(hub.count({ kind: "blob", reference: shared }), 0);
    await hub.stop();
    const [head] = await pullImage(mirror, "library/app", "1");
    assert.equal(head?.headers["docker-content-digest"], moved.manifest.digest);
  });

  void it("fetches only the wanted platforms, and leaves the others to their pulls", async (test) => {
    const { hub, mirror } = await openScene(test, {
      childrenSchedule: (run) => {
        run();
        return () => undefined;
      },
    });
    const order = { refs: ["multi:1"], platforms: ["linux/arm64"] };
    assertDone(await warm(mirror, order), 1);
    const [amd64, arm64] = multi.images;
    assert.equal(
      hub.count({ kind: "manifest", reference: amd64?.manifest.digest ?? "" }),
      0,
    );
    assert.equal(
      hub.count({ kind: "manifest", reference: arm64?.manifest.digest ?? "" }),
      1,
    );
  });

  void it("fails for an image without any wanted platform, and names those it has", async (test) => {
    const { mirror } = await openScene(test);
    const job = await warm(mirror, {
      refs: ["multi:1", "app:1"],
      platforms: ["linux/s390x"],
    });
    assert.equal(job.state, "failed");
    assert.deepEqual(
      job.errors.map(({ ref, message }) => [ref, message]),
      [
        [
          "docker.io/library/multi:1",
          "the image has no manifest for linux/s390x; it has linux/amd64, linux/arm64/v8",
        ],
      ],
    );
  });

  void it("continues after failures, and reports each by name", async (test) => {
    const { mirror } = await openScene(test);
    const job = await warm(mirror, {
      refs: ["app:absent", "app:1", "A", "ghcr.io/team/app:1"],
      lists: [{ name: "l.txt", text: "quay.io/team/app:1.0\n%\n" }],
    });
    assert.deepEqual([job.state, job.done, job.total], ["failed", 3, 3]);
    assert.deepEqual(
      job.errors.map(({ ref }) => ref),
      ["A", "ghcr.io/team/app:1", "l.txt:2", "docker.io/library/app:absent"],
    );
    await pullImage(mirror, "library/app", "1");
    await pullImage(mirror, "quay.io/team/app", "1.0");
  });

  void it("expands tag lists as their tool does, all pages", async (test) => {
    const { quay, mirror } = await openScene(test);
    const job = await warm(mirror, {
      lists: [
        {
          name: "sync.yaml",
          text: 'quay.io:\n  images-by-tag-regex:\n    team/app: "^1\\\\."\n',
        },
      ],
    });
    assertDone(job, 2);
    assert.equal(quay.count({ kind: "tags" }), 1);
    const warmed = quay
      .requests({ kind: "manifest", method: "GET" })
      .map(({ reference }) => reference);
    assert.deepEqual(new Set(warmed), new Set(["1.0", "1.1"]));
  });

  void it("sees a tag that was pushed since the last list", async (test) => {
    const { quay, mirror } = await openScene(test);
    const lists = [
      { name: "s", text: "quay.io:\n  images:\n    team/app: []\n" },
    ];
    assertDone(await warm(mirror, { lists }), 3);
    quay.content.addImage("team/app", image, "3.0");
    assertDone(await warm(mirror, { lists }), 4);
  });

  void it("makes referrers present, and cosign's tags", async (test) => {
    const { hub, mirror } = await openScene(test);
    const signature = buildArtifact({
      seed: "signature",
      artifactType: "application/vnd.example.signature",
      subject: image.manifest,
    });
    const countersignature = buildArtifact({
      seed: "countersignature",
      artifactType: "application/vnd.example.signature",
      subject: signature.manifest,
    });
    const cosign = buildArtifact({ seed: "cosign", artifactType: "a/b" });
    const tag = `${image.manifest.digest.replace(":", "-")}.sig`;
    hub.content.addImage("library/app", signature);
    hub.content.addImage("library/app", countersignature);
    hub.content.addImage("library/app", cosign, tag);
    assertDone(await warm(mirror, { refs: ["app:1"], withReferrers: true }), 1);
    await hub.stop();
    const { manifest } = image;
    const list = await mirror.get(
      `/v2/library/app/referrers/${manifest.digest}`,
    );
    assert.match(list.body.toString(), new RegExp(signature.manifest.digest));
    await pullImage(mirror, "library/app", tag);
    for (const artifact of [signature, countersignature]) {
      for (const { digest } of artifact.blobs) {
        const got = await mirror.get(`/v2/library/app/blobs/${digest}`);
        assert.equal(got.sha256, digest);
      }
    }
  });

  void it("pins images, each with one audit record", async (test) => {
    const audit = new AuditFile(join(await tempDir(test), "audit.jsonl"));
    const { mirror } = await openScene(test, {
      config: { audit: { file: audit.path } },
    });
    const order = { refs: ["app:1", `multi@${multi.manifest.digest}`] };
    await warm(mirror, { ...order, pin: true });
    assertDone(await warm(mirror, { ...order, pin: true }), 2);
    const { body } = await mirror.operate("GET", "/images");
    const { images } = body as { readonly images: readonly ImageDetail[] };
    assert.deepEqual(
      images.map(({ ref, pinned }) => [ref, pinned]),
      [
        ["docker.io/library/app:1", true],
        [`docker.io/library/multi@${multi.manifest.digest}`, true],
      ],
    );
    await mirror.close();
    const pinned = (await audit.records()).filter(
      ({ event }) => event === "pinned",
    );
    assert.equal(pinned.length, 2);
  });

  void it("fails images that are evicted before it ends", async (test) => {
    const { hub, mirror } = await openScene(test, {
      eviction: { maxSize: { bytes: 16_000 } },
    });
    const refs = ["1", "2", "3", "4"].map((tag) => {
      const small = buildImage({ seed: `small ${tag}`, layers: [5_000] });
      hub.content.addImage("library/small", small, tag);
      return `small:${tag}`;
    });
    const job = await warm(mirror, { refs, concurrency: 1 });
    assert.deepEqual([job.state, job.done], ["failed", 4]);
    assert.deepEqual(job.errors[0], {
      ref: "docker.io/library/small:1",
      message:
        "was evicted before the job ended: its images need more room than eviction.maxSize and minFree leave",
    });
    assert.ok(job.errorCount < refs.length, JSON.stringify(job.errors));
  });

  void it("is not held up by an upstream that does not answer", async (test) => {
    const { hub, mirror } = await openScene(test);
    const barrier = new Barrier();
    hub.when({ kind: "manifest" }, { hold: { at: "headers", barrier } });
    const { id } = await startWarm(mirror, { refs: REFS, concurrency: 1 });
    const job = await jobUntil(mirror, id, ({ done }) => done === 2);
    assert.deepEqual(
      job.running.map(({ ref }) => ref),
      ["docker.io/library/app:1"],
    );
    barrier.release();
    assertDone(
      await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null),
      4,
    );
  });

  void it("tries images again at the end whose upstream failed", async (test) => {
    const { hub, mirror } = await openScene(test, {
      warmSchedule: (run, delayMs) => {
        if (delayMs !== CRON_CHECK_MS) setImmediate(run);
        return () => undefined;
      },
    });
    const layer = image.layers[1]?.digest ?? "";
    hub.when({ kind: "blob", reference: layer }, { status: 500 }, { times: 2 });
    assertDone(await warm(mirror, { refs: ["app:1", "multi:1"] }), 2);
  });

  void it("ends when it is cancelled, and starts nothing afterwards", async (test) => {
    const { hub, quay, mirror } = await openScene(test);
    const barrier = new Barrier();
    hub.when({ kind: "blob" }, { hold: { at: 1_000, barrier } });
    quay.when({ kind: "blob" }, { hold: { at: 1_000, barrier } });
    const { id } = await startWarm(mirror, { refs: REFS, concurrency: 1 });
    await hub.arrived(1, { kind: "blob" });
    const { status } = await mirror.operate("DELETE", `/jobs/${id}`);
    assert.equal(status, 200);
    const job = await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
    assert.equal(job.state, "cancelled");
    assert.equal(hub.count({ repository: "library/multi" }), 0);
    barrier.release();
  });

  void it("reports the bytes of running downloads", async (test) => {
    const { hub, mirror } = await openScene(test);
    const barrier = new Barrier();
    const layer = image.layers[1]?.digest ?? "";
    hub.when(
      { kind: "blob", reference: layer },
      { hold: { at: 40_000, barrier } },
    );
    const { id } = await startWarm(mirror, { refs: ["app:1"] });
    const wanted = 3_000 + 40_000 + (image.config.sizeBytes ?? 0);
    const job = await jobUntil(mirror, id, ({ bytes }) => bytes >= wanted);
    assert.ok(job.bytes < job.bytesTotal);
    assert.equal(job.running[0]?.bytes, job.bytes);
    barrier.release();
    await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
  });

  void it("continues after a restart, and fetches what is missing only", async (test) => {
    const { hub, quay, mirror } = await openScene(test);
    const barrier = new Barrier();
    const layer = image.layers[1]?.digest ?? "";
    hub.when(
      { kind: "blob", reference: layer },
      { hold: { at: 40_000, barrier } },
      { times: 1 },
    );
    const { id } = await startWarm(mirror, { refs: REFS });
    await jobUntil(mirror, id, ({ done }) => done === 3);
    hub.forgetRequests();
    quay.forgetRequests();
    await mirror.restart();
    const job = await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null);
    assertDone(job, 4);
    barrier.release();
    // The rest of the layer that was being downloaded.
    assert.equal(hub.count({ kind: "blob" }), 1);
    assert.ok(hub.bytesSent() < 40_000, `${hub.bytesSent()}`);
    assert.equal(quay.bytesSent(), 0);
  });

  void it("finds stored images present while the mirror is offline, and names the others", async (test) => {
    const { hub, mirror } = await openScene(test);
    await warm(mirror, { refs: ["app:1"] });
    await mirror.restart({ offline: true });
    hub.forgetRequests();
    const job = await warm(mirror, { refs: ["app:1", "multi:1"] });
    assert.deepEqual([job.state, job.done, job.total], ["failed", 2, 2]);
    assert.deepEqual(job.errors, [
      {
        ref: "docker.io/library/multi:1",
        message: "not stored, and the mirror is offline",
      },
    ]);
    assert.equal(hub.count(), 0);
  });

  for (const [order, detail] of [
    [{}, "got neither lists nor refs; expected at least one of them"],
    [{ refs: ["a"], concurency: 2 }, "concurency: got an unknown member"],
    [{ refs: ["a"], concurrency: 17 }, "concurrency: must be <= 16"],
    [{ refs: ["a"], platforms: ["arm64"] }, "platforms: must match pattern"],
    [{ refs: "a" }, "refs: must be array"],
    [{ lists: [{ text: "a" }] }, "lists: must have required property 'name'"],
    [
      { lists: [{ name: "a", text: "a", path: "/etc/passwd" }] },
      "lists.path: got an unknown member",
    ],
    [
      { lists: [{ name: "a", text: "a", format: "helm" }] },
      "lists: must be equal to one of the allowed values",
    ],
  ] as const) {
    void it(`is not started for ${JSON.stringify(order)}`, async (test) => {
      const { mirror } = await openScene(test);
      const { status, body } = await mirror.operate("POST", "/warm", order);
      assert.equal(status, 400);
      const { detail: got } = body as { readonly detail: string };
      assert.ok(got.startsWith(detail), got);
    });
  }
});

/** A mirror of a registry that accepts one connection for blobs. */
async function openNarrow(test: AfterTest) {
  const hub = await ScriptedUpstream.start(test);
  const images = Array.from({ length: 6 }, (_, at) => {
    const one = buildImage({ seed: `narrow ${at}`, layers: [30_000, 900] });
    hub.content.addImage("library/narrow", one, `t${at}`);
    return one;
  });
  hub.content.addImage("library/app", image, "1");
  const mirror = await startMirror(test, [
    upstreamOf(hub, {
      name: HUB,
      isDefault: true,
      libraryPrefix: true,
      concurrency: 1,
    }),
  ]);
  return { hub, mirror, images };
}

void describe("the downloads of a warm job", () => {
  void it("wait for each other at an upstream with one connection, and none is begun again", async (test) => {
    const { hub, mirror, images } = await openNarrow(test);
    hub.when({ kind: "blob" }, { bytesPerSecond: 200_000 });
    const refs = images.map((_, at) => `narrow:t${at}`);
    assertDone(await warm(mirror, { refs }), images.length);
    const blobs = images.flatMap((one) => one.blobs);
    assert.equal(hub.count({ kind: "blob" }), blobs.length);
  });

  void it("give way to the pull of a client, and are resumed", async (test) => {
    const { hub, mirror, images } = await openNarrow(test);
    const barrier = new Barrier();
    const large = images[0]?.layers[0]?.digest ?? "";
    hub.when(
      { kind: "blob", reference: large },
      { hold: { at: 20_000, barrier } },
      { times: 1 },
    );
    const { id } = await startWarm(mirror, { refs: ["narrow:t0"] });
    await hub.sent(20_000, { kind: "blob", reference: large });
    const layer = image.layers[0]?.digest ?? "";
    await mirror.get("/v2/library/app/manifests/1");
    const pulled = await mirror.get(`/v2/library/app/blobs/${layer}`);
    assert.equal(pulled.sha256, layer);
    assertDone(
      await jobUntil(mirror, id, ({ endedAt }) => endedAt !== null),
      1,
    );
    barrier.release();
  });
});

void describe("the dry run of a warm job", () => {
  void it("counts what is missing, stores nothing and downloads no blob", async (test) => {
    const { hub, quay, mirror } = await openScene(test);
    await warm(mirror, { refs: ["quay.io/team/app:1.0"] });
    hub.forgetRequests();
    quay.forgetRequests();
    const plan = await planWarm(mirror, { refs: [...REFS, "app:absent"] });
    const bytes = (blobs: typeof image.blobs): number =>
      blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const wanted = [
      {
        ref: "docker.io/library/app:1",
        manifests: 1,
        blobs: 3,
        bytes: bytes(image.blobs),
        pulls: 0,
        isPartial: false,
      },
      {
        ref: "docker.io/library/multi:1",
        manifests: 3,
        blobs: 4,
        bytes: bytes(multi.images.flatMap(({ blobs }) => blobs)),
        pulls: 0,
        isPartial: false,
      },
    ];
    assert.deepEqual(plan.images.slice(0, 2), wanted);
    const [hubPlan, quayPlan] = plan.upstreams.toSorted((one, two) =>
      one.name < two.name ? -1 : 1,
    );
    assert.deepEqual(
      [hubPlan?.manifests, hubPlan?.blobs, hubPlan?.pullsLeft],
      [4, 7, null],
    );
    // The tag is not known, its manifest and blobs are those of another tag.
    assert.deepEqual(
      [
        quayPlan?.images,
        quayPlan?.present,
        quayPlan?.manifests,
        quayPlan?.blobs,
      ],
      [2, 1, 1, 0],
    );
    assert.deepEqual(
      plan.errors.map(({ ref }) => ref),
      ["docker.io/library/app:absent"],
    );
    assert.equal(hub.count({ kind: "blob" }) + quay.count({ kind: "blob" }), 0);
    const { body } = await mirror.operate("GET", "/images?q=library");
    assert.deepEqual((body as { images: unknown }).images, []);
  });

  void it("finds nothing missing after the job", async (test) => {
    const { mirror } = await openScene(test);
    const order = { refs: REFS, withReferrers: true };
    await warm(mirror, order);
    const plan = await planWarm(mirror, order);
    assert.deepEqual([plan.images, plan.errors], [[], []]);
  });

  void it("counts a blob of two images once", async (test) => {
    const { mirror } = await openScene(test);
    const plan = await planWarm(mirror, {
      refs: ["quay.io/team/app:1.0", "quay.io/team/app:1.1"],
    });
    const [quayPlan] = plan.upstreams;
    assert.deepEqual(
      [quayPlan?.manifests, quayPlan?.blobs],
      [2, other.blobs.length],
    );
  });
});
