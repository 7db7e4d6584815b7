import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import {
  type FileSystem,
  nodeFileSystem,
} from "../../src/storage/local/root/file-system.ts";
import { openLocalStorage } from "../../src/storage/local/open-local-storage.ts";
import { RebuildWait } from "../../src/storage/local/upkeep/rebuild-wait.ts";
import type { JournalRoot } from "../../src/storage/local/upkeep/journal-lines.ts";
import { keyOf, tag } from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { Barrier } from "../support/barrier.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { buildImage } from "../support/image-builder.ts";
import { quietLog } from "../support/pulling-mirror.ts";
import { storeImage } from "../support/stored-images.ts";
import { tempDir } from "../support/temp-dir.ts";

const IMAGES = 20;
const repositories = [keyOf("one.test", "app"), keyOf("two.test", "app")];
const [one = keyOf("", ""), two = one] = repositories;
const images = Array.from({ length: IMAGES }, (_, at) =>
  buildImage({ seed: `rebuild ${at}`, layers: [300] }),
);

/** Opens a root with images of two upstreams and a lost index. Its blobs can't be read until the barrier. */
async function openHeld(test: AfterTest) {
  const root = await tempDir(test);
  const parts = { root, clock: new FakeClock(), log: quietLog };
  const before = await openLocalStorage(parts);
  for (const [at, image] of images.entries()) {
    const key = repositories[at % 2] ?? one;
    await storeImage(before, key, image, tag(`v${at}`));
  }
  await before.close();
  const layout = diskLayout(root);
  rmSync(layout.indexFile);
  const barrier = new Barrier();
  const looked: string[] = [];
  const fileSystem: FileSystem = {
    ...nodeFileSystem,
    statPath: async (path) => {
      if (path.startsWith(layout.blobFolder("sha256"))) {
        looked.push(path);
        await barrier.pass();
      }
      return nodeFileSystem.statPath(path);
    },
  };
  const cache = await openLocalStorage({ ...parts, fileSystem });
  releaseAfter(test, async () => {
    barrier.release();
    await cache.close();
  });
  return { cache, barrier, layout, looked };
}

function pending(work: Promise<unknown>): Promise<unknown> {
  return Promise.race([work, delay(50, "pending" as const)]);
}

void describe("an index that is being rebuilt", () => {
  void it("delays requests for stored content", async (test) => {
    const { cache, barrier } = await openHeld(test);
    const { index } = cache;
    const at = IMAGES - 1;
    const { manifest, layers } = images[at] ?? assert.fail();
    const [layer] = layers;
    assert(layer !== undefined);
    const byTag = index.getTag(two, tag(`v${at}`));
    const byDigest = index.getLinkedBlob(two, manifest.digest);
    const blob = index.getLinkedBlob(two, layer.digest);
    for (const asked of [byTag, byDigest, blob]) {
      assert.equal(await pending(asked), "pending");
    }
    // Requests for content that the journal does not name do not wait.
    assert.equal(await index.getTag(two, tag("v0")), undefined);
    barrier.release();
    assert.equal((await byTag)?.digest, manifest.digest);
    assert.equal((await byDigest)?.digest, manifest.digest);
    assert.equal((await blob)?.digest, layer.digest);
    // Links are per repository.
    assert.equal(await index.getLinkedBlob(one, layer.digest), undefined);
  });

  void it("restores requested content first", async (test) => {
    const { cache, barrier, looked, layout } = await openHeld(test);
    const at = IMAGES - 2;
    const asked = cache.index.getTag(one, tag(`v${at}`));
    await barrier.arrived();
    assert.equal(await pending(asked), "pending");
    barrier.release();
    const digest = (await asked)?.digest ?? assert.fail();
    const place = looked.indexOf(layout.blobFile(digest));
    // After the image that was being restored: its manifest, config and layer.
    assert.ok(place <= 4, `${place}`);
  });

  void it("delays requests for a bounded time, once per name", async () => {
    const rebuild = new RebuildWait(20);
    const root: JournalRoot = {
      key: one,
      reference: { kind: "tag", tag: tag("v") },
      digest: images[0]?.manifest.digest,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      isPinned: false,
      atMs: 1,
    };
    rebuild.begin();
    rebuild.expect([root]);
    assert.equal(await rebuild.forRoot(one, root.reference), false);
    assert.equal(rebuild.takeWanted(), root);
    // The wait for the tag included its digest.
    const { digest = assert.fail() } = root;
    assert.equal(
      await rebuild.forBlob(one, digest, () =>
        assert.fail("the file is looked up"),
      ),
      false,
    );
    const other = images[1]?.manifest.digest ?? assert.fail();
    for (const isStored of [true, false]) {
      assert.equal(
        await rebuild.forBlob(one, other, () => Promise.resolve(isStored)),
        false,
      );
    }
    rebuild.end();
    assert.equal(rebuild.isOn, false);
    assert.equal(await rebuild.forRoot(one, root.reference), false);
  });
});
