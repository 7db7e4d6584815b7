import assert from "node:assert/strict";
import { stat, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { buffer } from "node:stream/consumers";
import { Readable } from "node:stream";
import { describe, it } from "node:test";
import type {
  ExportBody,
  ExportSummary,
} from "../../src/http/operator/api-export.ts";
import type { AfterTest } from "../support/after-test.ts";
import { AuditFile } from "../support/audit-file.ts";
import { blobsOf, readBundle, type ReadBundle } from "../support/bundles.ts";
import { hostedConfig } from "../support/hosted-config.ts";
import {
  buildImage,
  buildMultiArch,
  type TestImage,
} from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";

const APP = "registry.example/library/app";
const single = buildImage({ seed: "single", layers: [5_000, 6_000] });
const multi = buildMultiArch({ seed: "multi", layers: [7_000] });
// More than sockets and the archive's queue hold.
const large = buildImage({ seed: "large", layers: [48 * 1024 * 1024] });

async function setUp(
  test: AfterTest,
): Promise<{ mirror: TestMirror; audit: AuditFile }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", single, "1");
  upstream.content.addIndex("library/app", multi, "2");
  upstream.content.addImage("library/app", large, "large");
  const audit = new AuditFile(`${await tempDir(test)}/audit.jsonl`);
  const mirror = await startMirror(test, [upstreamOf(upstream)], {
    config: { hosted: [hostedConfig()], audit: { file: audit.path } },
  });
  await pullImage(mirror, "library/app", "1");
  await pullImage(mirror, "library/app", "2");
  await mirror.settled();
  return { mirror, audit };
}

function digestsOf(...images: readonly TestImage[]): string[] {
  const digests = images.flatMap(({ manifest, blobs }) => [
    manifest.digest,
    ...blobs.map(({ digest }) => digest),
  ]);
  return [...new Set<string>(digests)].toSorted();
}

async function post(
  mirror: TestMirror,
  body: ExportBody,
): Promise<{ response: Response; summary: () => ExportSummary }> {
  const response = await fetch(`${mirror.operatorOrigin}/api/v1/export`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  return {
    response,
    summary: () =>
      JSON.parse(
        response.headers.get("entrepot-export") ?? "",
      ) as ExportSummary,
  };
}

async function read(response: Response): Promise<ReadBundle> {
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "application/x-tar");
  return readBundle(Readable.from([Buffer.from(await response.arrayBuffer())]));
}

async function detailOf(response: Response): Promise<string | undefined> {
  return ((await response.json()) as { detail?: string }).detail;
}

/** Requests an export and reads only its head. */
async function startReading(
  mirror: TestMirror,
  ref: string,
): Promise<IncomingMessage> {
  const request = get(
    `${mirror.operatorOrigin}/api/v1/export?ref=${encodeURIComponent(ref)}`,
    { agent: false },
  );
  const [response] = (await once(request, "response")) as [IncomingMessage];
  return response;
}

/** The job of an export, as the log has it when it has ended. */
async function endedJob(mirror: TestMirror): Promise<unknown> {
  await mirror.logged("ended a job of the server");
  const line = mirror.log.findLast(
    ({ msg }) => msg === "ended a job of the server",
  );
  return [line?.["kind"], line?.["state"], line?.["done"]];
}

void describe("GET /api/v1/export", () => {
  void it("streams mirrored and hosted images as a bundle", async (test) => {
    const { mirror, audit } = await setUp(test);
    await mirror.operate("POST", "/tags", {
      source: `${APP}:1`,
      target: "local/app:9",
    });
    const query = new URLSearchParams([
      ["ref", "registry.example/**"],
      ["ref", "local/app:9"],
    ]);
    const response = await fetch(
      `${mirror.operatorOrigin}/api/v1/export?${query.toString()}`,
    );
    const bundle = await read(response);
    const [amd64] = multi.images;
    assert(amd64 !== undefined);
    assert.deepEqual(
      blobsOf(bundle),
      [...digestsOf(single, amd64), multi.manifest.digest].toSorted(),
    );
    assert.equal(bundle.index.manifests.length, 3);
    assert.deepEqual(await endedJob(mirror), ["export", "done", 3]);
    const record = await audit.find(({ event }) => event === "exported");
    assert.deepEqual(
      [record["client"], record["images"], record["references"]],
      ["127.0.0.1", 3, ["local/app:9", `${APP}:1`, `${APP}:2`]],
    );
  });

  void it("names every image that cannot be exported", async (test) => {
    const { mirror } = await setUp(test);
    const query = new URLSearchParams([
      ["ref", `${APP}:1`],
      ["ref", `${APP}:2`],
      ["platform", "linux/arm64"],
    ]);
    const response = await fetch(
      `${mirror.operatorOrigin}/api/v1/export?${query.toString()}`,
    );
    assert.equal(response.status, 404);
    const [, arm64] = multi.images;
    assert.equal(
      await detailOf(response),
      `${APP}:2 is not complete: ${arm64?.manifest.digest} not stored; run 'entrepot warm ${APP}:2'`,
    );
    assert.deepEqual(await endedJob(mirror), ["export", "failed", 0]);
  });

  void it("ends before the end of the archive if a blob is damaged", async (test) => {
    const { mirror } = await setUp(test);
    const [layer] = single.layers;
    assert(layer !== undefined);
    const wrong = layer.bytes();
    wrong[0] = (wrong[0] ?? 0) ^ 1;
    await writeFile(mirror.blobFile(layer.digest), wrong);
    const response = await startReading(mirror, `${APP}:1`);
    assert.equal(response.statusCode, 200);
    await assert.rejects(buffer(response));
    assert.equal(response.complete, false);
    assert.deepEqual(await endedJob(mirror), ["export", "failed", 0]);
  });

  void it("needs a reference, and has no HEAD", async (test) => {
    const { mirror } = await setUp(test);
    const url = `${mirror.operatorOrigin}/api/v1/export`;
    assert.equal((await fetch(url)).status, 400);
    const head = await fetch(`${url}?ref=${APP}:1`, { method: "HEAD" });
    assert.equal(head.status, 404);
  });

  void it("keeps the content from eviction until it is read or the client leaves", async (test) => {
    const { mirror } = await setUp(test);
    await pullImage(mirror, "library/app", "large");
    await mirror.settled();
    const [layer] = large.layers;
    assert(layer !== undefined);
    const evict = () => mirror.operate("POST", "/evict", { toBytes: 0 });
    const isStored = () =>
      stat(mirror.blobFile(layer.digest)).then(
        () => true,
        () => false,
      );
    const response = await startReading(mirror, `${APP}:large`);
    await evict();
    const bundle = await readBundle(response);
    assert.deepEqual(blobsOf(bundle), digestsOf(large));
    assert.deepEqual(await endedJob(mirror), ["export", "done", 1]);
    await evict();
    assert.equal(await isStored(), false);

    await pullImage(mirror, "library/app", "large");
    await mirror.settled();
    mirror.log.length = 0;
    const abandoned = await startReading(mirror, `${APP}:large`);
    await evict();
    assert.equal(await isStored(), true);
    abandoned.destroy();
    assert.deepEqual(await endedJob(mirror), ["export", "cancelled", 0]);
    await evict();
    assert.equal(await isStored(), false);
  });
});

void describe("POST /api/v1/export", () => {
  void it("takes lists, and leaves out the blobs of an earlier bundle", async (test) => {
    const { mirror } = await setUp(test);
    const first = await post(mirror, { refs: [`${APP}:1`] });
    await read(first.response);
    const { indexDigest, blobs, bytes } = first.summary();
    const second = await post(mirror, {
      lists: [{ name: "list.txt", text: `${APP}:1\n${APP}:2\n` }],
      platforms: ["linux/amd64"],
      since: {
        indexDigest,
        manifests: [
          { digest: single.manifest.digest, registry: "registry.example" },
        ],
      },
    });
    const later = await read(second.response);
    const [amd64] = multi.images;
    assert(amd64 !== undefined);
    assert.deepEqual(
      blobsOf(later),
      [...digestsOf(amd64), multi.manifest.digest].toSorted(),
    );
    assert.equal(
      later.index.annotations?.["io.entrepot.bundle.base"],
      indexDigest,
    );
    const { images, omittedBlobs, omittedBytes } = second.summary();
    assert.deepEqual([images, omittedBlobs, omittedBytes], [2, blobs, bytes]);
  });

  void it("refuses a request that is not valid", async (test) => {
    const { mirror } = await setUp(test);
    for (const [body, detail] of [
      [{ refs: [] }, "the request names no image"],
      [
        { refs: [`${APP}:1`], platforms: ["linux"] },
        /^platforms: must match pattern/,
      ],
      [{ refs: ["%"] }, "% is not a reference"],
      [{ lists: [{ name: "l", text: "a b c\n" }] }, /^l:1: got/],
      [
        {
          refs: [`${APP}:1`],
          since: { indexDigest: "x", manifests: [] },
        },
        "got x; expected a digest",
      ],
    ] as const) {
      const { response } = await post(mirror, body);
      assert(response.status === 400 || response.status === 404);
      const got = await detailOf(response);
      if (typeof detail === "string") assert.equal(got, detail);
      else assert.match(got ?? "", detail);
    }
  });
});
