import assert from "node:assert/strict";
import { readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { systemClock } from "../../src/telemetry/clock.ts";
import {
  buildImage,
  descriptorJson,
  manifestOf,
  seededBlob,
  type TestBlob,
} from "../support/image-builder.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import type { RawResponse } from "../support/raw-client.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import type { AfterTest } from "../support/temp-dir.ts";

/*
 * Wrong bodies that a client could accept as complete: wrong lengths from an upstream, and damaged
 * blobs on disk. Two upstreams, of which one is healthy and must stay so for its clients.
 */

const LAYERS = 20;
const IMAGES = {
  sick: buildImage({
    seed: "sick",
    layers: Array.from({ length: LAYERS }, (_, i) => 100_000 + i * 10_000),
  }),
  well: buildImage({
    seed: "well",
    layers: Array.from({ length: LAYERS }, (_, i) => 100_000 + i * 10_000),
  }),
} as const;
type Name = keyof typeof IMAGES;
const NAMES: readonly Name[] = ["sick", "well"];
const VERSIONS = ["1.0", "1.1"] as const;
/** Like engines after a digest mismatch. */
const MAX_ATTEMPTS = 3;

interface Scene {
  readonly upstreams: Readonly<Record<Name, ScriptedUpstream>>;
  readonly mirror: TestMirror;
}

async function setUp(test: AfterTest): Promise<Scene> {
  const [sick, well] = [
    await ScriptedUpstream.start(test),
    await ScriptedUpstream.start(test),
  ];
  const upstreams = { sick, well };
  for (const name of NAMES) {
    upstreams[name].content.addImage("a", IMAGES[name], "v");
  }
  const mirror = await startMirror(
    test,
    NAMES.map((name) =>
      upstreamOf(upstreams[name], { name, isDefault: name === "sick" }),
    ),
    {
      clock: systemClock,
      config: {
        trustedProxies: ["127.0.0.1"],
        scrub: { dailyShare: 0, onReadMs: 7 * 24 * 3_600_000 },
      },
    },
  );
  for (const name of NAMES) await mirror.get(`/${name}/v2/a/manifests/v`);
  return { upstreams, mirror };
}

function pathOf(name: Name, blob: TestBlob): string {
  return `/${name}/v2/a/blobs/${blob.digest}`;
}

function ask(
  mirror: TestMirror,
  path: string,
  version: string,
  client: string,
): Promise<RawResponse> {
  return mirror.raw(
    `GET ${path} HTTP/${version}\r\nHost: m\r\nX-Forwarded-For: ${client}\r\nConnection: close\r\n\r\n`,
  );
}

function isCompleteAndWrong(
  { status, end, sha256 }: RawResponse,
  blob: TestBlob,
): boolean {
  return status === 200 && end === "complete" && sha256 !== blob.digest;
}

void describe("an upstream's wrong lengths", () => {
  void it("never result in a complete body, and do not affect another upstream's clients", async (test) => {
    const { upstreams, mirror } = await setUp(test);
    const { sick } = upstreams;
    const lies = [
      { body: "" },
      { shortenTo: 70_000 },
      { appendBytes: 5_000 },
    ] as const;
    for (const [i, layer] of IMAGES.sick.layers.entries()) {
      const lie = lies[i % lies.length] ?? lies[0];
      sick.when({ kind: "blob", reference: layer.digest }, lie);
    }
    const wrong = { sick: 0, well: 0 };
    const whole = { sick: 0, well: 0 };
    let answers = 0;
    await Promise.all(
      NAMES.flatMap((name) =>
        IMAGES[name].layers.flatMap((layer) =>
          VERSIONS.map(async (version) => {
            const got = await ask(
              mirror,
              pathOf(name, layer),
              version,
              "10.0.0.1",
            );
            answers += 1;
            if (isCompleteAndWrong(got, layer)) wrong[name] += 1;
            if (got.sha256 === layer.digest) whole[name] += 1;
          }),
        ),
      ),
    );
    let heads = 0;
    for (const layer of IMAGES.sick.layers) {
      const head = await mirror.head(pathOf("sick", layer));
      const length = head.headers["content-length"];
      if (head.status === 200 && length !== String(layer.sizeBytes)) heads += 1;
    }
    await mirror.settled();
    sick.clearRules();
    let healed = 0;
    for (const layer of IMAGES.sick.layers) {
      const got = await ask(mirror, pathOf("sick", layer), "1.1", "10.0.0.2");
      if (got.sha256 === layer.digest) healed += 1;
    }
    test.diagnostic(
      `of ${answers} answers ${wrong.sick + wrong.well} complete and wrong, ` +
        `${heads} of ${LAYERS} HEADs wrong; the healthy upstream ${whole.well} of ` +
        `${2 * LAYERS} whole; afterwards ${healed} of ${LAYERS} whole`,
    );
    assert.deepEqual(wrong, { sick: 0, well: 0 });
    assert.equal(heads, 0);
    assert.equal(whole.well, 2 * LAYERS);
    assert.equal(healed, LAYERS);
  });

  void it("delay a head by 18 s at most, and the download continues", async (test) => {
    const { upstreams, mirror } = await setUp(test);
    const blob = seededBlob("slow", 200_000);
    const { mediaType } = IMAGES.sick.manifest;
    const manifest = manifestOf(
      {
        schemaVersion: 2,
        mediaType,
        config: descriptorJson(IMAGES.sick.config),
        layers: [{ ...descriptorJson(blob), size: 300_000 }],
      },
      mediaType,
    );
    upstreams.sick.content.addBlob("a", blob);
    upstreams.sick.content.addManifest("a", manifest, "wrong");
    // The descriptor is wrong, which the body shows only after 20 s.
    upstreams.sick.when({ kind: "blob" }, { bytesPerSecond: 10_000 });
    await mirror.get("/sick/v2/a/manifests/wrong");
    const startMs = performance.now();
    const late = ask(mirror, pathOf("sick", blob), "1.1", "10.0.0.1");
    const neighbours = await Promise.all(
      IMAGES.well.layers.map((layer) =>
        ask(mirror, pathOf("well", layer), "1.1", "10.0.0.2"),
      ),
    );
    const { status } = await late;
    const seconds = (performance.now() - startMs) / 1000;
    await mirror.settled();
    const got = await ask(mirror, pathOf("sick", blob), "1.1", "10.0.0.1");
    test.diagnostic(
      `${status} after ${seconds.toFixed(1)} s, then ${got.status}, ` +
        `${got.sha256 === blob.digest ? "whole" : "wrong"}, for one download`,
    );
    assert.equal(status, 502);
    assert.ok(seconds < 18.5);
    assert.deepEqual([got.status, got.sha256], [200, blob.digest]);
    assert.equal(upstreams.sick.count({ reference: blob.digest }), 1);
    for (const { status: other, end } of neighbours) {
      assert.deepEqual([other, end], [200, "complete"]);
    }
  });
});

void describe("stored blobs that are damaged", () => {
  void it("are complete for each client by its second attempt, with one download each", async (test) => {
    const { upstreams, mirror } = await setUp(test);
    for (const name of NAMES) {
      for (const layer of IMAGES[name].layers) {
        await ask(mirror, pathOf(name, layer), "1.1", "10.0.0.1");
      }
    }
    await mirror.settled();
    // No client received anything before that.
    await mirror.restart();
    for (const upstream of Object.values(upstreams)) upstream.forgetRequests();
    for (const layer of IMAGES.sick.layers) {
      rot(mirror.blobFile(layer.digest));
    }
    const attempts: number[] = [];
    let failed = 0;
    let wrongNeighbours = 0;
    await Promise.all(
      Array.from({ length: 10 }, (_, i) => `10.0.1.${i}`).map(
        async (client) => {
          for (const [at, layer] of IMAGES.sick.layers.entries()) {
            const path = pathOf("sick", layer);
            let count = 0;
            for (;;) {
              count += 1;
              const got = await ask(mirror, path, "1.1", client);
              if (got.sha256 === layer.digest) break;
              if (count === MAX_ATTEMPTS) {
                failed += 1;
                break;
              }
            }
            attempts.push(count);
            const neighbour = IMAGES.well.layers[at];
            assert.ok(neighbour);
            const other = await ask(
              mirror,
              pathOf("well", neighbour),
              "1.1",
              client,
            );
            if (other.sha256 !== neighbour.digest) wrongNeighbours += 1;
          }
        },
      ),
    );
    await mirror.settled();
    const metric = (outcome: string) =>
      mirror.metric(`entrepot_read_verifications_total{outcome="${outcome}"}`);
    const reads = {
      wrong: await metric("wrong"),
      right: await metric("right"),
    };
    const downloads = upstreams.sick.count({ kind: "blob", method: "GET" });
    test.diagnostic(
      `of ${attempts.length} pulls ${failed} failed ${MAX_ATTEMPTS} times, at most ` +
        `${Math.max(...attempts)} attempts; ${downloads} downloads, ${reads.wrong} wrong and ` +
        `${reads.right} right verifications; ${wrongNeighbours} wrong of the other upstream's`,
    );
    assert.equal(failed, 0);
    assert.ok(Math.max(...attempts) <= 2);
    assert.equal(wrongNeighbours, 0);
    assert.equal(reads.wrong, LAYERS);
    assert.equal(downloads, LAYERS);
    assert.equal(upstreams.well.count({ kind: "blob" }), 0);
  });
});

/** Changes a byte like a faulty disk: size and times are unchanged. */
function rot(file: string): void {
  const { atime, mtime } = statSync(file);
  const bytes = readFileSync(file);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  utimesSync(file, atime, mtime);
}
