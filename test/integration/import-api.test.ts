import assert from "node:assert/strict";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { type ClientRequest, request } from "node:http";
import { text } from "node:stream/consumers";
import { describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { ImportReport } from "../../src/images/bundles/bundle.ts";
import type { Job } from "../../src/images/jobs/job.ts";
import type { AfterTest } from "../support/after-test.ts";
import { AuditFile } from "../support/audit-file.ts";
import {
  blobMembers,
  bundleMembers,
  indexMember,
  layoutMember,
  tarOf,
  type TestMember,
} from "../support/bundle-archive.ts";
import { hostedConfig } from "../support/hosted-config.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
} from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  type TestMirrorOptions,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";

const REPOSITORY = "registry.example/library/app";
const NAME = `${REPOSITORY}:1`;
const image = buildImage({ seed: "image", layers: [50_000, 3_000_000] });
const moved = buildImage({ seed: "moved", layers: [4_000] });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });
const members = bundleMembers({ [NAME]: image });

interface Scene {
  readonly mirror: TestMirror;
  readonly upstream: ScriptedUpstream;
}

async function setUp(
  test: AfterTest,
  options: TestMirrorOptions = {},
): Promise<Scene> {
  const upstream = await ScriptedUpstream.start(test);
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    ...options,
    config: { hosted: [hostedConfig()], ...options.config },
  });
  return { mirror, upstream };
}

async function post(
  mirror: TestMirror,
  content: readonly TestMember[] | Buffer,
  query = "",
): Promise<{ readonly status: number; readonly body: unknown }> {
  const body = Buffer.isBuffer(content) ? content : await tarOf(content);
  const response = await fetch(
    `${mirror.operatorOrigin}/api/v1/import${query}`,
    { method: "POST", body: new Uint8Array(body) },
  );
  return { status: response.status, body: await response.json() };
}

/** Starts a request whose body the test sends in parts. */
function startPost(mirror: TestMirror, query = ""): ClientRequest {
  return request(`${mirror.operatorOrigin}/api/v1/import${query}`, {
    method: "POST",
    headers: { "content-type": "application/x-tar" },
    agent: false,
  });
}

async function answerOf(outgoing: ClientRequest): Promise<unknown> {
  const [response] = (await once(outgoing, "response")) as [
    NodeJS.ReadableStream & { readonly statusCode: number },
  ];
  return [response.statusCode, JSON.parse(await text(response))];
}

async function blobFiles({ root }: TestMirror): Promise<string[]> {
  return readdir(`${root}/blobs/sha256`);
}

async function jobs(mirror: TestMirror): Promise<readonly Job[]> {
  const { body } = await mirror.operate("GET", "/jobs");
  return (body as { readonly items: readonly Job[] }).items;
}

void describe("POST /api/v1/import", () => {
  void it("fills an empty offline mirror, which serves every image", async (test) => {
    const audit = new AuditFile(`${await tempDir(test)}/audit.jsonl`);
    const { mirror, upstream } = await setUp(test, {
      offline: true,
      config: { audit: { file: audit.path } },
    });
    const all = { [NAME]: image, "registry.example/team/multi:2": multi };
    const { status, body } = await post(mirror, bundleMembers(all));
    assert.equal(status, 200);
    const { images, blobs } = body as ImportReport;
    assert.deepEqual(
      images.map(({ ref }) => ref),
      Object.keys(all),
    );
    assert.equal(blobs, (await blobFiles(mirror)).length);
    await pullImage(mirror, REPOSITORY, "1");
    await pullImage(mirror, "registry.example/team/multi", "2");
    for (const each of multi.images) {
      const path = `/v2/registry.example/team/multi/manifests/${each.manifest.digest}`;
      assert.equal((await mirror.get(path)).sha256, each.manifest.digest);
    }
    assert.equal(upstream.count(), 0);
    const [job] = await jobs(mirror);
    assert.deepEqual(
      [job?.kind, job?.state, job?.done, job?.total],
      ["import", "done", 2, 2],
    );
    assert(job !== undefined && job.bytes > 0 && job.bytes === job.bytesTotal);
    const ls = await mirror.operate("GET", "/images");
    const listed = (ls.body as { images: { ref: string; complete: boolean }[] })
      .images;
    assert.deepEqual(
      listed.map(({ ref, complete }) => [ref, complete]),
      [
        [NAME, true],
        ["registry.example/team/multi:2", true],
      ],
    );
    await mirror.close();
    const events = (await audit.records()).filter(
      ({ event }) => event === "imported",
    );
    assert.deepEqual(
      events.map(({ reference, client }) => [reference, client]),
      Object.keys(all).map((ref) => [ref, "127.0.0.1"]),
    );
  });

  void it("stores a tag that the next online pull revalidates", async (test) => {
    const { mirror, upstream } = await setUp(test);
    upstream.content.addImage("library/app", moved, "1");
    await post(mirror, members);
    const head = await mirror.head(`/v2/${REPOSITORY}/manifests/1`);
    assert.equal(
      head.headers["docker-content-digest"],
      moved.manifest.digest,
      "the upstream moved it since",
    );
  });

  void it("stores a tag that is served as stale while the upstream is down, for as long as that is allowed", async (test) => {
    const upstream = await ScriptedUpstream.start(test);
    const mirror = await startMirror(
      test,
      [
        upstreamOf(upstream, {
          freshness: {
            ...upstreamOf(upstream).freshness,
            staleIfErrorMs: 3_600_000,
          },
        }),
      ],
      { offline: true },
    );
    await post(mirror, members);
    const answer = await mirror.head(`/v2/${REPOSITORY}/manifests/1`);
    assert.equal(answer.status, 200);
    mirror.clock.advance(1_000_000);
    const later = await mirror.head(`/v2/${REPOSITORY}/manifests/1`);
    assert.equal(later.headers["age"], "1000");
    mirror.clock.advance(3_000_000);
    assert.equal(
      (await mirror.head(`/v2/${REPOSITORY}/manifests/1`)).status,
      404,
    );
  });

  void it("moves a tag that was served before", async (test) => {
    const { mirror } = await setUp(test, { offline: true });
    for (const each of [image, moved, image]) {
      await post(mirror, bundleMembers({ [NAME]: each }));
      await pullImage(mirror, REPOSITORY, "1");
      const { headers } = await mirror.head(`/v2/${REPOSITORY}/manifests/1`);
      assert.equal(headers["docker-content-digest"], each.manifest.digest);
    }
  });

  void it("asks a client that waits for it to send the body", async (test) => {
    const { mirror } = await setUp(test, { offline: true });
    const bytes = await tarOf(members);
    const outgoing = request(`${mirror.operatorOrigin}/api/v1/import`, {
      method: "POST",
      headers: { expect: "100-continue", "content-length": bytes.length },
      agent: false,
    });
    outgoing.flushHeaders();
    await once(outgoing, "continue");
    const answer = answerOf(outgoing);
    outgoing.end(bytes);
    const [status] = (await answer) as [number];
    assert.equal(status, 200);
  });

  void it("stores referrers that are listed offline", async (test) => {
    const { mirror } = await setUp(test, { offline: true });
    const signature = buildArtifact({
      seed: "signature",
      artifactType: "application/vnd.example.signature",
      subject: image.manifest,
    });
    await post(mirror, [
      layoutMember(),
      indexMember([
        {
          of: image.manifest,
          annotations: { "io.containerd.image.name": NAME },
        },
        { of: signature.manifest },
      ]),
      ...blobMembers(image, signature),
    ]);
    const { body } = await mirror.get(
      `/v2/${REPOSITORY}/referrers/${image.manifest.digest}`,
    );
    const { manifests } = JSON.parse(body.toString()) as {
      manifests: { digest: string }[];
    };
    assert.deepEqual(
      manifests.map(({ digest }) => digest),
      [signature.manifest.digest],
    );
    const below = await mirror.get(
      `/v2/${REPOSITORY}/referrers/${signature.manifest.digest}`,
    );
    assert.equal(below.status, 200, "clients ask for referrers of referrers");
    for (const { digest } of [signature.manifest, ...signature.blobs]) {
      const kind = digest === signature.manifest.digest ? "manifests" : "blobs";
      const got = await mirror.get(`/v2/${REPOSITORY}/${kind}/${digest}`);
      assert.equal(got.sha256, digest);
    }
  });

  void it("imports below a hosted path and pins, and accepts compressed archives", async (test) => {
    const { mirror } = await setUp(test, { offline: true });
    const { body } = await post(
      mirror,
      gzipSync(await tarOf(members)),
      "?into=local/site&pin=true",
    );
    const [first] = (body as ImportReport).images;
    assert.equal(first?.ref, "local/site/library/app:1");
    await pullImage(mirror, "local/site/library/app", "1");
    const ls = await mirror.operate("GET", "/images");
    const [listed] = (ls.body as { images: { pinned: boolean }[] }).images;
    assert.equal(listed?.pinned, true);
  });

  void it("names an image that has no name", async (test) => {
    const { mirror } = await setUp(test);
    const unnamed = [
      layoutMember(),
      indexMember([{ of: image.manifest }]),
      ...blobMembers(image),
    ];
    const refused = await post(mirror, unnamed);
    assert.equal(refused.status, 400);
    assert.match(
      String(Reflect.get(refused.body as object, "detail")),
      /--name/,
    );
    const named = await post(mirror, unnamed, "?name=registry.example/a/b:1");
    assert.equal(named.status, 200);
    const wrong = await post(mirror, unnamed, "?into=registry.example/a");
    assert.equal(wrong.status, 400);
    assert.match(
      String(Reflect.get(wrong.body as object, "type")),
      /name-invalid/,
    );
  });

  const encodings: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
    "as it is": (bytes) => bytes,
    "with gzip": (bytes) => gzipSync(bytes, { level: 0 }),
    "with zstd": (bytes) => zstdCompressSync(bytes),
  };
  for (const [how, encode] of Object.entries(encodings)) {
    void it(`responds to a refused bundle ${how} before all of it is sent`, async (test) => {
      const { mirror } = await setUp(test);
      const damaged = members.map((member) => {
        const bytes = Buffer.from(member.bytes);
        if (bytes.length === 50_000) bytes.writeUInt8((bytes[9] ?? 0) ^ 1, 9);
        return { ...member, bytes };
      });
      const bytes = encode(await tarOf(damaged));
      const outgoing = startPost(mirror);
      outgoing.on("error", () => undefined);
      // The rest is never sent.
      outgoing.write(bytes.subarray(0, bytes.length - 1_000_000));
      const [status, problem] = (await answerOf(outgoing)) as [number, object];
      assert.equal(status, 400);
      assert.match(String(Reflect.get(problem, "detail")), /is damaged/);
      outgoing.destroy();
      assert.deepEqual(await blobFiles(mirror), []);
      const [job] = await jobs(mirror);
      assert.equal(job?.state, "failed");
      assert.match(String(job?.errors[0]?.message), /is damaged/);
    });
  }

  void it("keeps what it received when its client leaves, and continues there", async (test) => {
    const { mirror } = await setUp(test, { offline: true });
    const bytes = await tarOf(members);
    const outgoing = startPost(mirror);
    outgoing.on("error", () => undefined);
    outgoing.write(bytes.subarray(0, bytes.length - 2_000));
    while ((await blobFiles(mirror)).length === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    outgoing.destroy();
    while ((await jobs(mirror))[0]?.state === "running") {
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal((await jobs(mirror))[0]?.state, "cancelled");
    const before = (await blobFiles(mirror)).length;
    assert(before > 0);
    const path = `/v2/${REPOSITORY}/blobs/${image.layers[0]?.digest ?? ""}`;
    assert.equal((await mirror.get(path)).status, 404, "no client can read it");
    const { body } = await post(mirror, members);
    assert.equal((body as ImportReport).blobs, 4 - before);
    await pullImage(mirror, REPOSITORY, "1");
  });

  void it("ends when its job is cancelled", async (test) => {
    const { mirror } = await setUp(test);
    const bytes = await tarOf(members);
    const outgoing = startPost(mirror);
    outgoing.on("error", () => undefined);
    outgoing.write(bytes.subarray(0, 100_000));
    let id: string | undefined;
    while (id === undefined) id = (await jobs(mirror))[0]?.id;
    const answer = answerOf(outgoing);
    await mirror.operate("DELETE", `/jobs/${id}`);
    outgoing.write(bytes.subarray(100_000, 200_000));
    const [status] = (await answer) as [number, unknown];
    assert.equal(status, 503);
    outgoing.destroy();
    assert.equal((await jobs(mirror))[0]?.state, "cancelled");
  });

  void it("may run twice at once with the same bundle", async (test) => {
    const { mirror } = await setUp(test, { offline: true });
    const bytes = await tarOf(members);
    const both = [startPost(mirror), startPost(mirror)];
    const answers = both.map(answerOf);
    // Both are in the middle of the large layer.
    for (const outgoing of both) outgoing.write(bytes.subarray(0, 2_000_000));
    while ((await jobs(mirror)).length < 2) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (const outgoing of both) outgoing.end(bytes.subarray(2_000_000));
    for (const answer of answers) {
      const [status] = (await answer) as [number];
      assert.equal(status, 200);
    }
    assert.equal((await blobFiles(mirror)).length, 4);
    await pullImage(mirror, REPOSITORY, "1");
  });

  void it("runs beside pulls of the same image that fetch the same blobs", async (test) => {
    const { mirror, upstream } = await setUp(test);
    upstream.content.addImage("library/app", image, "1");
    const bytes = await tarOf(members);
    const outgoing = startPost(mirror);
    const answer = answerOf(outgoing);
    outgoing.write(bytes.subarray(0, 2_000_000));
    const pulls = [
      pullImage(mirror, REPOSITORY, "1"),
      pullImage(mirror, REPOSITORY, "1"),
    ];
    outgoing.end(bytes.subarray(2_000_000));
    const [status] = (await answer) as [number];
    assert.equal(status, 200);
    await Promise.all(pulls);
    await mirror.settled();
    const scrub = await mirror.operate("POST", "/scrub");
    assert.deepEqual(Reflect.get(scrub.body as object, "findings"), []);
    assert.equal((await blobFiles(mirror)).length, 4);
  });

  void it("drops nothing that a pull fetched while the bundle was refused", async (test) => {
    const { mirror, upstream } = await setUp(test);
    upstream.content.addImage("library/app", image, "1");
    const bytes = await tarOf(members.slice(0, -1));
    const outgoing = startPost(mirror);
    const answer = answerOf(outgoing);
    outgoing.write(bytes.subarray(0, bytes.length - 600));
    while ((await blobFiles(mirror)).length < 3) {
      if ((await blobFiles(mirror)).length > 0) break;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await pullImage(mirror, REPOSITORY, "1");
    outgoing.end(bytes.subarray(bytes.length - 600));
    const [status] = (await answer) as [number];
    assert.equal(status, 400);
    upstream.forgetRequests();
    await pullImage(mirror, REPOSITORY, "1");
    assert.equal(upstream.count(), 0, "everything is still stored");
    const scrub = await mirror.operate("POST", "/scrub");
    assert.deepEqual(Reflect.get(scrub.body as object, "findings"), []);
  });

  void it("is not evicted half-way while the cache is nearly full", async (test) => {
    const old = buildImage({ seed: "old", layers: [3_000_000] });
    const { mirror, upstream } = await setUp(test, {
      eviction: { maxSize: { bytes: 5_000_000 } },
    });
    upstream.content.addImage("library/old", old, "1");
    upstream.content.addImage("library/app", image, "1");
    await pullImage(mirror, "registry.example/library/old", "1");
    const { status } = await post(mirror, members);
    assert.equal(status, 200);
    upstream.forgetRequests();
    await mirror.operate("POST", "/evict");
    await pullImage(mirror, REPOSITORY, "1");
    assert.equal(upstream.count({ kind: "blob" }), 0);
    const ls = await mirror.operate("GET", "/images");
    const listed = (ls.body as { images: { ref: string }[] }).images;
    assert.deepEqual(
      listed.map(({ ref }) => ref),
      [NAME],
      "the image that was pulled longest ago made room",
    );
  });

  void it("is refused with what is missing if it cannot fit, before anything is evicted", async (test) => {
    const old = buildImage({ seed: "old", layers: [500_000] });
    const { mirror, upstream } = await setUp(test, {
      eviction: { maxSize: { bytes: 1_000_000 } },
    });
    upstream.content.addImage("library/old", old, "1");
    await pullImage(mirror, "registry.example/library/old", "1");
    const { status, body } = await post(mirror, members);
    assert.equal(status, 507);
    assert.match(
      String(Reflect.get(body as object, "detail")),
      /eviction.maxSize allows 1000000: \d+ more are needed/,
    );
    upstream.forgetRequests();
    await pullImage(mirror, "registry.example/library/old", "1");
    assert.equal(upstream.count({ kind: "blob" }), 0);
  });

  void it("responds to a large body that cannot fit, and reads the rest of it", async (test) => {
    const { mirror } = await setUp(test, {
      eviction: { maxSize: { bytes: 1_000_000 } },
    });
    const body = Buffer.concat([
      await tarOf(members),
      Buffer.alloc(12_000_000),
    ]);
    const outgoing = startPost(mirror);
    outgoing.setHeader("content-length", body.length);
    const answer = answerOf(outgoing);
    const sent = once(outgoing, "finish");
    outgoing.end(body);
    const [status] = (await answer) as [number];
    assert.equal(status, 507);
    await sent;
  });

  void it("waits until a restarted mirror has recovered", async (test) => {
    const { mirror } = await setUp(test, { offline: true });
    await post(mirror, members);
    await mirror.restart();
    const { status } = await post(
      mirror,
      bundleMembers({ "registry.example/b:1": moved }),
    );
    assert.equal(status, 200);
    await pullImage(mirror, REPOSITORY, "1");
    await pullImage(mirror, "registry.example/b", "1");
  });
});
