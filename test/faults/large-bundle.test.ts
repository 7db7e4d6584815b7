import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createDigestHash, digestSoFar } from "../../src/oci/digest.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { repository, tag } from "../support/bundles.ts";
import { ChildMirror } from "../support/child-mirror.ts";
import { buildImage, type TestBlob } from "../support/image-builder.ts";
import { rawRequest } from "../support/raw-client.ts";
import { seededBytes } from "../support/seeded-bytes.ts";
import { soakFactor } from "../support/soak.ts";
import { storeBlob, storeManifest } from "../support/stored-images.ts";
import { tempDir } from "../support/temp-dir.ts";

const MIB = 1024 * 1024;
/** Above 8 GiB, where a tar header needs an extension; else a part of it. */
const LAYER_BYTES = soakFactor(1 / 24) * 9 * 1024 * MIB;
/** What a process may take on top of its start, however large the layer is. */
const MAX_GROWTH_BYTES = 200 * MIB;
const TIMEOUT_MS = 20 * 60_000;
const MAIN = join(import.meta.dirname, "../../src/main.ts");
const NAME = "registry.example/library/large";
const key = repository(NAME);
const ignore = (): void => undefined;

/** A sparse file: random bytes at its start, its middle and its end, zeros between them. */
async function writeLayer(path: string): Promise<TestBlob> {
  await mkdir(dirname(path), { recursive: true });
  const random = seededBytes("layer", 8 * MIB).read(0, 8 * MIB);
  {
    await using file = await open(path, "wx");
    await file.truncate(LAYER_BYTES);
    for (const position of [
      0,
      Math.floor(LAYER_BYTES / 2),
      LAYER_BYTES - random.length,
    ]) {
      await file.write(random, 0, random.length, position);
    }
  }
  const hash = createDigestHash("sha256");
  await using file = await open(path);
  const buffer = Buffer.alloc(4 * MIB);
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length);
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
  }
  return {
    mediaType: "application/vnd.oci.image.layer.v1.tar",
    digest: digestSoFar("sha256", hash),
    sizeBytes: LAYER_BYTES,
    read: () => assert.fail("the layer is on disk"),
    bytes: () => assert.fail("the layer is on disk"),
  };
}

/** Fills a storage root with an image that has the layer. @returns the digest of the layer */
async function fill(root: string): Promise<string> {
  const layout = diskLayout(root);
  const storage = await openLocalStorage({
    root,
    clock: systemClock,
    log: { info: ignore, warn: ignore, error: ignore },
  });
  await storage.upkeep.recovered();
  const file = join(root, "layer");
  const layer = await writeLayer(file);
  await mkdir(dirname(layout.blobFile(layer.digest)), { recursive: true });
  await rename(file, layout.blobFile(layer.digest));
  const image = buildImage({ seed: "large", layers: [layer] });
  await storeManifest(storage, key, image.manifest);
  await storeBlob(storage, key, image.config);
  const { digest, sizeBytes } = layer;
  await storage.index.recordBlob(key, { digest, sizeBytes, storedAtMs: 1 });
  await storage.index.putTag(key, tag("1"), image.manifest.digest, 1);
  await storage.close();
  return digest;
}

/** Samples the peak memory of a process until it ends. */
class PeakMemory {
  readonly #pid: number;
  #peakBytes = 0;
  #isEnded = false;
  readonly #sampling: Promise<void>;

  constructor(pid: number | undefined) {
    assert(pid !== undefined);
    this.#pid = pid;
    this.#sampling = this.#sample();
  }

  async end(): Promise<number> {
    this.#isEnded = true;
    await this.#sampling;
    return this.#peakBytes;
  }

  async #sample(): Promise<void> {
    while (!this.#isEnded) {
      const bytes = await residentBytes(this.#pid);
      this.#peakBytes = Math.max(this.#peakBytes, bytes);
      await delay(50);
    }
  }
}

async function residentBytes(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

function command(
  mirror: ChildMirror,
  args: readonly string[],
  stdio: ["pipe" | "ignore", "pipe", "pipe"],
): ChildProcess {
  return spawn(
    process.execPath,
    [MAIN, ...args, "--config", mirror.configFile],
    { stdio },
  );
}

void describe("a bundle with a large blob", () => {
  void it(
    "goes from one mirror to another in constant memory",
    { timeout: TIMEOUT_MS },
    async (test) => {
      const [fromDir, toDir] = [await tempDir(test), await tempDir(test)];
      const config = {
        upstreams: {
          "registry.example": { endpoints: ["http://127.0.0.1:1"] },
        },
        eviction: { minFree: "0B", maxIdle: "forever" },
        offline: true,
      };
      const layer = await fill(join(fromDir, "data"));
      const [from, to] = await Promise.all(
        [fromDir, toDir].map((dir) => ChildMirror.start(test, { dir, config })),
      );
      assert(from !== undefined && to !== undefined);
      // Their configurations then have the ports by which commands find them.
      await Promise.all([from.restart(), to.restart()]);
      const servers = [from, to].map(({ child }) => child.pid);
      const before = await Promise.all(servers.map(residentBytes));
      const startedAtMs = performance.now();
      const exporting = command(
        from,
        ["export", `${NAME}:1`, "-o", "-"],
        ["ignore", "pipe", "pipe"],
      );
      const importing = command(to, ["import", "-"], ["pipe", "pipe", "pipe"]);
      assert(exporting.stdout !== null && importing.stdin !== null);
      exporting.stdout.pipe(importing.stdin);
      let errors = "";
      for (const { stderr } of [exporting, importing]) {
        stderr?.on("data", (text: Buffer) => (errors += text.toString()));
      }
      importing.stdout?.resume();
      const peaks = [...servers, exporting.pid, importing.pid].map(
        (pid) => new PeakMemory(pid),
      );
      const codes = await Promise.all(
        [exporting, importing].map(async (child) => {
          const [code] = (await once(child, "exit")) as [number | null];
          return code;
        }),
      );
      const seconds = (performance.now() - startedAtMs) / 1_000;
      const bytes = await Promise.all(peaks.map((peak) => peak.end()));
      assert.deepEqual(codes, [0, 0], errors);
      const text = bytes.map((each) => Math.round(each / MIB)).join(", ");
      test.diagnostic(
        `${Math.round(LAYER_BYTES / MIB)} MiB in ${seconds.toFixed(1)} s; peaks of both servers and both commands in MiB: ${text}; servers before: ${before.map((each) => Math.round(each / MIB)).join(", ")}`,
      );
      for (const [at, peak] of bytes.entries()) {
        const start = before[at] ?? 100 * MIB;
        assert(peak - start < MAX_GROWTH_BYTES, text);
      }
      const pulled = await rawRequest({
        port: to.port,
        path: `/v2/${NAME}/blobs/${layer}`,
        body: "hash",
      });
      assert.deepEqual(
        [pulled.status, pulled.end, pulled.sha256],
        [200, "complete", layer],
      );
    },
  );
});
