import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { describe, it } from "node:test";
import { HostedTarget } from "../../../../src/images/takeover/hosted-target.ts";
import { MirroredTarget } from "../../../../src/images/takeover/mirrored-target.ts";
import { asForeignFileStore } from "../../../../src/images/takeover/publish-blob.ts";
import type { RepositoryName } from "../../../../src/oci/reference.ts";
import { systemClock } from "../../../../src/telemetry/clock.ts";
import { DistributionTree } from "../../../support/distribution-tree.ts";
import { hostedConfig } from "../../../support/hosted-config.ts";
import { buildImage } from "../../../support/image-builder.ts";
import { openImportScene } from "../../../support/import-scene.ts";
import { tempDir } from "../../../support/temp-dir.ts";

const image = buildImage({ seed: "app", layers: [100] });
const key = { upstream: "local", repository: "app" as RepositoryName };

void describe("a file of a registry that still writes", () => {
  for (const kind of ["mirrored", "hosted"]) {
    void it(`is not recorded with the size that it had before: ${kind}`, async (test) => {
      const config = hostedConfig();
      const {
        index,
        blobs,
        parts: scene,
      } = await openImportScene(test, await tempDir(test), {
        hosted: [config],
      });
      await scene.recovered();
      const store = asForeignFileStore(blobs);
      assert(store !== undefined);
      const parts = { index, store, clock: systemClock, keyOf: () => key };
      const target =
        kind === "mirrored"
          ? new MirroredTarget(parts)
          : new HostedTarget({ ...parts, config });
      const tree = new DistributionTree(await tempDir(test));
      const [layer] = image.layers;
      assert(layer !== undefined);
      tree.putBlob("app", layer);
      const { digest } = layer;
      const path = tree.blobPath(layer);
      const work = {
        signal: new AbortController().signal,
        onBytes: () => undefined,
      };
      const { uid: userId } = statSync(path);
      const blob = { digest, path, userId };
      assert.deepEqual(
        await target.takeBlob(key, { ...blob, sizeBytes: 60 }, work),
        {
          kind: "failed",
          problem: "damaged",
          message: "its size changed while it was read",
        },
      );
      assert.equal(await index.getBlob(digest), undefined);
      assert.deepEqual(
        await target.takeBlob(key, { ...blob, sizeBytes: 100 }, work),
        { kind: "linked" },
      );
      assert.equal((await index.getBlob(digest))?.sizeBytes, 100);
    });
  }
});
