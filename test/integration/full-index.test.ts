import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { IndexError } from "../../src/storage/metadata-index.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { settleIntents } from "../../src/storage/local/upkeep/settle-intents.ts";
import { trackBlobStore } from "../../src/storage/tracked-blob-store.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { buildImage } from "../support/image-builder.ts";
import { mirrorOver, pull, quietLog } from "../support/pulling-mirror.ts";
import { ScriptedRegistry } from "../support/scripted-client.ts";
import { tempDir } from "../support/temp-dir.ts";

const app = keyOf("docker.io", "library/app");
const latest = tag("latest");
const image = buildImage({ seed: "full-index", layers: [300_000] });

/** Creates a mirror whose index rejects some calls, as on a full disk. */
async function setUp(test: AfterTest, refused: ReadonlySet<string>) {
  const root = await tempDir(test);
  const cache = await openLocalStorage({
    root,
    clock: systemClock,
    log: quietLog,
  });
  releaseAfter(test, () => cache.close());
  const blobs = trackBlobStore(cache.blobs);
  const registry = new ScriptedRegistry();
  registry.push(app, image, latest);
  const mirror = mirrorOver(
    {
      blobs,
      index: new Proxy(cache.index, {
        get: (index, name) => {
          if (refused.has(String(name))) {
            return () => Promise.reject(new IndexError("SQLITE_FULL"));
          }
          const member: unknown = Reflect.get(index, name);
          return typeof member === "function" ? member.bind(index) : member;
        },
      }),
    },
    registry,
    { clock: systemClock },
  );
  const settle = (): Promise<number> =>
    settleIntents({ ...cache.upkeep.scrubParts, index: cache.index, blobs });
  const files = (): number =>
    readdirSync(diskLayout(root).blobFolder("sha256")).length;
  return { cache, blobs, mirror, settle, files };
}

void describe("an index that accepts no rows for a while", () => {
  void it("records the published blobs later, without a restart", async (test) => {
    const { cache, mirror, settle, files } = await setUp(
      test,
      new Set(["recordBlob"]),
    );
    assert.equal(await pull(mirror, app, latest), image.manifest.digest);
    await mirror.close();
    assert.equal(files(), 3);
    assert.equal((await cache.index.totals()).blobs, 0);
    assert.equal(await settle(), 3);
    assert.equal((await cache.index.totals()).blobs, 3);
    assert.deepEqual(await cache.index.listIntents(), []);
  });

  void it("leaves no published file without any record", async (test) => {
    const { mirror, settle, files } = await setUp(
      test,
      new Set(["recordBlob", "beginFill"]),
    );
    assert.equal(await pull(mirror, app, latest), image.manifest.digest);
    await mirror.close();
    assert.equal(files(), 0);
    assert.equal(await settle(), 0);
  });

  void it("keeps the intent of a running fill", async (test) => {
    const { cache, blobs, settle } = await setUp(test, new Set());
    const { digest, sizeBytes } = image.config;
    await cache.index.beginFill(app, { digest, sizeBytes });
    const partial = await blobs.beginWrite({
      kind: "fill",
      digest,
      expectedBytes: sizeBytes,
    });
    assert.equal(await settle(), 0);
    assert.equal((await cache.index.listIntents()).length, 1);
    await partial.abort();
    assert.equal(await settle(), 0);
    assert.deepEqual(await cache.index.listIntents(), []);
  });
});
