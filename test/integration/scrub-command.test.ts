import type {
  DroppedBlob,
  ScrubFinding,
} from "../../src/storage/scrub-report.ts";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { BackgroundScrub } from "../../src/storage/local/upkeep/background-scrub.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { releaseAfter } from "../support/after-test.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { buildImage } from "../support/image-builder.ts";
import { ManualSchedule } from "../support/manual-schedule.ts";
import {
  startMirror,
  type TestMirror,
  upstreamOf,
} from "../support/mirror-harness.ts";
import { pullImage } from "../support/pull-image.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { storeImage } from "../support/stored-images.ts";
import { type AfterTest, tempDir } from "../support/temp-dir.ts";

const MAIN = join(import.meta.dirname, "../../src/main.ts");
const image = buildImage({ seed: "command", layers: [50_000, 2_000_000] });
const [small] = image.layers;
assert(small !== undefined);

const ignore = (): void => undefined;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function entrepot(...args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, ...args]);
  const said = { stdout: "", stderr: "" };
  child.stdout.on("data", (part: Buffer) => {
    said.stdout += part.toString();
  });
  child.stderr.on("data", (part: Buffer) => {
    said.stderr += part.toString();
  });
  const [code] = (await once(child, "close")) as [number];
  return { code, ...said };
}

/** Starts a mirror with the image stored, and writes its configuration file. */
async function mirrorWithImage(
  test: AfterTest,
): Promise<{ mirror: TestMirror; upstream: ScriptedUpstream; file: string }> {
  const upstream = await ScriptedUpstream.start(test);
  upstream.content.addImage("library/app", image, "1");
  const mirror = await startMirror(test, [upstreamOf(upstream)]);
  await pullImage(mirror, "library/app", "1");
  const file = join(await tempDir(test), "entrepot.yaml");
  writeFileSync(
    file,
    JSON.stringify({
      operator: { listen: `127.0.0.1:${mirror.operatorPort}` },
      storage: { root: mirror.root },
    }),
  );
  return { mirror, upstream, file };
}

function corrupt(path: string): void {
  const bytes = readFileSync(path);
  bytes[100] = (bytes[100] ?? 0) ^ 0x40;
  writeFileSync(path, bytes);
}

void describe("entrepot scrub", () => {
  void it("asks the running mirror, which fetches dropped content again", async (test) => {
    const { mirror, upstream, file } = await mirrorWithImage(test);
    const clean = await entrepot("scrub", "--config", file, "--json");
    assert.equal(clean.stderr, "");
    assert.equal(clean.code, 0);
    assert.deepEqual(JSON.parse(clean.stdout), {
      blobs: 4,
      bytes: 2_050_000 + image.config.sizeBytes + image.manifest.sizeBytes,
      findings: [],
    });
    for (const { digest } of [small, image.manifest]) {
      corrupt(mirror.blobFile(digest));
    }
    const found = await entrepot("scrub", "--config", file, "--json");
    assert.equal(found.code, 1);
    upstream.forgetRequests();
    const repaired = await entrepot("scrub", "--config", file, "--repair");
    assert.equal(repaired.code, 1);
    assert.match(repaired.stdout, /2 findings, 2 repaired\n$/);
    assert.match(
      repaired.stdout,
      new RegExp(
        `^blob-corrupt +repaired +blobs/sha256/${small.digest.slice(7)}$`,
        "m",
      ),
    );
    for (const { digest } of [small, image.manifest]) {
      await upstream.ended({ reference: digest });
    }
    await mirror.settled();
    // The client receives the answer before the row is written.
    for (let left = 100; left > 0; left -= 1) {
      const again = await entrepot("scrub", "--config", file, "--json");
      const { blobs } = JSON.parse(again.stdout) as { blobs: number };
      if (blobs === 4 && again.code === 0) break;
      assert.notEqual(left, 1, again.stdout);
    }
    upstream.forgetRequests();
    await mirror.restart({ offline: true });
    await pullImage(mirror, "library/app", "1");
    assert.equal(upstream.requests.length, 0);
  });

  void it("scrubs the root directly if no mirror uses it", async (test) => {
    const { mirror, file } = await mirrorWithImage(test);
    await mirror.close();
    corrupt(mirror.blobFile(small.digest));
    const found = await entrepot("scrub", "--config", file);
    assert.equal(found.code, 1);
    assert.match(found.stdout, /1 finding, 0 repaired\n$/);
    assert.equal(
      (await entrepot("scrub", "--config", file, "--repair")).code,
      1,
    );
    assert.equal(existsSync(mirror.blobFile(small.digest)), false);
    const clean = await entrepot("scrub", "--config", file);
    assert.deepEqual([clean.code, clean.stderr], [0, ""]);
    assert.match(
      clean.stdout,
      /^3 blobs, \d+(?:\.\d)? [KMG]?i?B: no damage found\n$/,
    );
  });

  void it("names the process that holds the root if it does not answer", async (test) => {
    const { mirror } = await mirrorWithImage(test);
    const file = join(await tempDir(test), "entrepot.yaml");
    writeFileSync(
      file,
      JSON.stringify({
        operator: { listen: false },
        storage: { root: mirror.root },
      }),
    );
    const refused = await entrepot("scrub", "--config", file);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /is in use by process \d+\n$/);
    const absent = await entrepot("scrub", "--config", join(file, "none"));
    assert.equal(absent.code, 2);
  });

  void it("counts its findings in metrics", async (test) => {
    const { mirror, file } = await mirrorWithImage(test);
    const series = 'entrepot_scrub_findings_total{code="blob-corrupt"}';
    assert.equal(await mirror.metric(series), 0);
    corrupt(mirror.blobFile(small.digest));
    await entrepot("scrub", "--config", file, "--repair");
    assert.equal(await mirror.metric(series), 1);
  });
});

void describe("the background scrub", () => {
  void it("reads its daily share, continues after a restart, and drops damaged blobs", async (test) => {
    const root = await tempDir(test);
    const clock = new FakeClock();
    const log = { info: ignore, warn: ignore, error: ignore };
    const cache = await openLocalStorage({ root, clock, log });
    releaseAfter(test, () => cache.close());
    const app = keyOf("docker.io", "library/app");
    const blobs = [1, 2, 3, 4, 5].map((n) =>
      buildImage({ seed: `background/${n}`, layers: [200_000] }),
    );
    for (const [at, one] of blobs.entries()) {
      await storeImage(cache, app, one, tag(`v${at}`));
    }
    const victim = blobs[2]?.layers[0];
    assert(victim !== undefined);
    const path = cache.upkeep.scrubParts.layout.blobFile(victim.digest);
    corrupt(path);
    assert.notEqual(digestOf(readFileSync(path)), victim.digest);
    const findings: ScrubFinding[] = [];
    const dropped: DroppedBlob[] = [];
    const schedule = new ManualSchedule();
    const scrub = new BackgroundScrub({
      parts: () => cache.upkeep.scrubParts,
      // The whole share in ten hours.
      dailyShare: () => 2.4,
      clock,
      log,
      onFinding: (finding) => findings.push(finding),
      onDropped: (blob) => dropped.push(blob),
      schedule: schedule.start,
    });
    const places: number[] = [];
    for (let hour = 0; hour < 11; hour += 1) {
      clock.advance(60 * 60 * 1000);
      schedule.runNext();
      while (schedule.delaysMs.length === 0) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      places.push(cache.upkeep.audit.readScrubPlace());
    }
    await scrub.stop();
    assert.deepEqual(
      findings.map(({ code, digest, repaired }) => [code, digest, repaired]),
      [["blob-corrupt", victim.digest, true]],
    );
    assert.deepEqual(
      dropped.map(({ digest, repositories }) => [digest, repositories]),
      [[victim.digest, [app]]],
    );
    // Some rows each hour, not all in one step.
    assert(new Set(places).size >= 5, places.join(" "));
    assert.equal(existsSync(path), false);
  });
});
