import assert from "node:assert/strict";
import { copyFileSync, readFileSync, rmSync } from "node:fs";
import { describe, it } from "node:test";
import type { RepositoryKey } from "../../src/oci/reference.ts";
import {
  type LocalStorage,
  openLocalStorage,
} from "../../src/storage/local/open-local-storage.ts";
import { diskLayout } from "../../src/storage/local/root/disk-layout.ts";
import { systemClock } from "../../src/telemetry/clock.ts";
import { keyOf } from "../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../support/after-test.ts";
import { pushImage, uploadBlob } from "../support/hosted-pushes.ts";
import { UNLIMITED } from "../support/hosted-store.ts";
import { buildImage, type TestBlob } from "../support/image-builder.ts";
import { quietLog } from "../support/pulling-mirror.ts";
import { tempDir } from "../support/temp-dir.ts";

const app = keyOf("local", "team/app");
const web = keyOf("second", "web");
const image = buildImage({ seed: "unlinked", layers: [2_000, 3_000] });
const sibling = buildImage({
  seed: "sibling",
  layers: [...image.layers, 4_000],
});
const [layer, otherLayer] = image.layers;
assert(layer && otherLayer);

/** A storage root that is opened again and again. */
class Root {
  readonly layout: ReturnType<typeof diskLayout>;
  storage: LocalStorage;
  #isOpen = true;

  private constructor(path: string, storage: LocalStorage) {
    this.layout = diskLayout(path);
    this.storage = storage;
  }

  static async open(test: AfterTest): Promise<Root> {
    const path = `${await tempDir(test)}/data`;
    const root = new Root(path, await openAt(path));
    releaseAfter(test, () => root.#close());
    await root.storage.upkeep.recovered();
    return root;
  }

  async #close(): Promise<void> {
    if (this.#isOpen) await this.storage.close();
    this.#isOpen = false;
  }

  /** Closes the storage, changes its files and opens it again. */
  async reopen(change: () => void): Promise<void> {
    await this.#close();
    change();
    this.storage = await openAt(this.layout.root);
    this.#isOpen = true;
    await this.storage.upkeep.recovered();
  }

  loseIndex(): Promise<void> {
    return this.reopen(() => {
      for (const suffix of ["", "-wal", "-shm"]) {
        rmSync(this.layout.indexFile + suffix, { force: true });
      }
    });
  }

  async unlink(key: RepositoryKey, { digest }: TestBlob): Promise<void> {
    const { kind } = await this.storage.index.unlinkHostedBlob(
      key,
      digest,
      UNLIMITED.isImmutable,
    );
    assert.equal(kind, "deleted");
  }

  async isLinked(
    key: RepositoryKey,
    { digest }: Pick<TestBlob, "digest">,
  ): Promise<boolean> {
    const row = await this.storage.index.getLinkedBlob(key, digest);
    return row !== undefined;
  }

  journal(): string {
    return readFileSync(this.layout.rootsFile, "utf8");
  }
}

function openAt(root: string): Promise<LocalStorage> {
  return openLocalStorage({ root, clock: systemClock, log: quietLog });
}

async function assertScrubbed(root: Root): Promise<void> {
  const { findings } = await root.storage.upkeep.scrub({ isRepair: false });
  assert.deepEqual(findings, []);
}

void describe("a blob deleted while a manifest names it", () => {
  void it("stays deleted in its repository after the index is lost, also after compactions", async (test) => {
    const root = await Root.open(test);
    for (const key of [app, web]) await pushImage(root.storage, key, image);
    await root.unlink(app, layer);
    for (let loss = 0; loss < 3; loss += 1) {
      await root.loseIndex();
      assert.equal(await root.isLinked(app, layer), false);
      assert.equal(await root.isLinked(app, otherLayer), true);
      assert.equal(await root.isLinked(app, image.manifest), true);
      assert.equal(await root.isLinked(web, layer), true);
      await assertScrubbed(root);
    }
    assert.equal(root.journal().split('"blob":"unlinked"').length, 2);
  });

  void it("is back after the index is lost, if it was uploaded or mounted again", async (test) => {
    const root = await Root.open(test);
    for (const key of [app, web]) await pushImage(root.storage, key, image);
    for (const one of [layer, otherLayer]) await root.unlink(app, one);
    await root.loseIndex();
    await uploadBlob(root.storage, app, layer);
    const { digest } = otherLayer;
    const { quota } = UNLIMITED;
    assert.equal(
      await root.storage.index.mountHostedBlob(app, digest, web, 1, quota),
      "stored",
    );
    for (let loss = 0; loss < 3; loss += 1) {
      await root.loseIndex();
      for (const one of image.blobs) {
        assert.equal(await root.isLinked(app, one), true);
      }
    }
    assert.equal(root.journal().includes('"blob"'), false);
  });

  void it("agrees with the journal after an older copy of the index", async (test) => {
    const root = await Root.open(test);
    const { indexFile } = root.layout;
    await pushImage(root.storage, app, image);
    await root.reopen(() => copyFileSync(indexFile, `${indexFile}.linked`));
    await root.unlink(app, layer);
    await root.reopen(() => copyFileSync(indexFile, `${indexFile}.unlinked`));
    await root.reopen(() => copyFileSync(`${indexFile}.linked`, indexFile));
    assert.equal(await root.isLinked(app, layer), false);
    await uploadBlob(root.storage, app, layer);
    await root.reopen(() => copyFileSync(`${indexFile}.unlinked`, indexFile));
    assert.equal(await root.isLinked(app, layer), true);
    // The line of the upload is gone from the compacted journal.
    assert.equal(root.journal().includes('"blob"'), false);
    await root.reopen(() => copyFileSync(`${indexFile}.unlinked`, indexFile));
    assert.equal(await root.isLinked(app, layer), true);
    await assertScrubbed(root);
  });

  void it("is not linked again by a push to another repository after its bytes were lost", async (test) => {
    const root = await Root.open(test);
    await pushImage(root.storage, app, image);
    await root.unlink(app, layer);
    // As a scrub that finds the bytes damaged.
    await root.storage.index.forgetBlob(layer.digest);
    await uploadBlob(root.storage, web, layer);
    assert.equal(await root.isLinked(app, layer), false);
    assert.equal(await root.isLinked(web, layer), true);
  });

  void it("is forgotten with the last manifest that names it", async (test) => {
    const root = await Root.open(test);
    for (const one of [image, sibling]) {
      await pushImage(root.storage, app, one, [`${one.layers.length}`]);
    }
    await root.unlink(app, layer);
    const remove = ({ manifest }: typeof image) =>
      root.storage.index.deleteHostedManifest(
        app,
        manifest.digest,
        UNLIMITED.isImmutable,
      );
    await remove(image);
    await root.loseIndex();
    assert.equal(await root.isLinked(app, layer), false);
    assert.equal(root.journal().includes('"blob":"unlinked"'), true);
    await remove(sibling);
    await pushImage(root.storage, app, image);
    await root.loseIndex();
    for (const one of image.blobs) {
      assert.equal(await root.isLinked(app, one), true);
    }
    assert.equal(root.journal().includes('"blob"'), false);
  });
});
