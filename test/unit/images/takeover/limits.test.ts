import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DryTarget } from "../../../../src/images/takeover/dry-target.ts";
import { takeOverFolder } from "../../../../src/images/takeover/take-over-folder.ts";
import type {
  TakeoverCounts,
  TakeoverProblem,
  TakeoverProgress,
} from "../../../../src/images/takeover/takeover.ts";
import type { AfterTest } from "../../../support/after-test.ts";
import { DistributionTree } from "../../../support/distribution-tree.ts";
import {
  buildImage,
  buildIndex,
  buildMultiArch,
  manifestOf,
  descriptorJson,
} from "../../../support/image-builder.ts";
import { tempDir } from "../../../support/temp-dir.ts";

const app = buildImage({ seed: "app", layers: [100] });
const multi = buildMultiArch({ seed: "multi", layers: [200] });
const nested = manifestOf(
  {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [descriptorJson(multi.manifest), descriptorJson(app.manifest)],
  },
  "application/vnd.oci.image.index.v1+json",
);

interface Ended {
  readonly counts: TakeoverCounts;
  readonly problems: readonly TakeoverProblem[];
  readonly progress: readonly TakeoverProgress[];
  /** Digests of the manifests, in their order. */
  readonly order: readonly string[];
}

/** Finds what would be taken over from a tree. */
async function dryRun(
  tree: DistributionTree,
  options: {
    readonly takesParts?: boolean;
    readonly maxLinks?: number;
    readonly maxDigests?: number;
  } = {},
): Promise<Ended> {
  const problems: TakeoverProblem[] = [];
  const progress: TakeoverProgress[] = [];
  const order: string[] = [];
  const { takesParts = false, maxLinks, maxDigests } = options;
  const target = new DryTarget({
    takesParts,
    keyOf: (repository) => ({ upstream: "local", repository }),
    isLinkable: () => true,
    isStored: () => Promise.resolve(false),
    judgeManifest: () => undefined,
    judgeTag: undefined,
    ...(maxDigests !== undefined && { maxDigests }),
  });
  const counts = await takeOverFolder({
    tree: tree.path("."),
    target: {
      takesParts,
      keyOf: (name) => target.keyOf(name),
      takeBlob: (key, blob) => target.takeBlob(key, blob),
      judgeTag: (key, tag) => target.judgeTag(key, tag),
      takeManifest: (key, manifest, tags) => {
        order.push(manifest.digest);
        return target.takeManifest(key, manifest, tags);
      },
    },
    signal: new AbortController().signal,
    onProblem: (problem) => problems.push(problem),
    onProgress: (state) => progress.push(state),
    ...(maxLinks !== undefined && { maxLinks }),
  });
  return { counts, problems, progress, order };
}

async function treeOf(test: AfterTest): Promise<DistributionTree> {
  return new DistributionTree(await tempDir(test));
}

void describe("links of a folder that is taken over", () => {
  void it("are bounded in each repository", async (test) => {
    const tree = await treeOf(test);
    tree.putIndex("large", multi, "1");
    tree.putImage("small", app, "1");
    const { counts, problems } = await dryRun(tree, { maxLinks: 2 });
    assert.deepEqual(problems, [
      {
        kind: "unknown",
        name: "large",
        message: "got more than 2 links in one repository; expected fewer",
      },
    ]);
    assert.equal(counts.tags, 1);
    const tags = await treeOf(test);
    tags.putImage("app", app, "1", "2", "3");
    assert.equal((await dryRun(tags, { maxLinks: 2 })).problems.length, 1);
    assert.equal((await dryRun(tags, { maxLinks: 3 })).problems.length, 0);
  });

  void it("are bounded in number in a dry run, which remembers them", async (test) => {
    const tree = await treeOf(test);
    tree.putImage("app", app, "1");
    await assert.rejects(
      dryRun(tree, { maxDigests: 2 }),
      /got a folder with more than 2 blobs/,
    );
    assert.equal((await dryRun(tree, { maxDigests: 3 })).counts.blobs, 3);
  });

  void it("are counted before, so that the progress ends at the total", async (test) => {
    const tree = await treeOf(test);
    tree.putIndex("a/b", multi, "1");
    tree.putImage("a", app, "1");
    for (const takesParts of [true, false]) {
      const { progress } = await dryRun(tree, { takesParts });
      const last = progress.at(-1);
      assert.equal(last?.total, 2 * 3 + 1 + 3);
      assert.equal(last?.done, last?.total);
    }
  });
});

void describe("the manifests of a repository", () => {
  void it("are taken before the indexes that name them, at any depth", async (test) => {
    const tree = await treeOf(test);
    tree.putManifest("app", nested, "all");
    tree.putIndex("app", multi, "multi");
    tree.putImage("app", app);
    const { order, counts, problems } = await dryRun(tree);
    assert.deepEqual(problems, []);
    assert.deepEqual([counts.manifests, counts.tags], [5, 2]);
    const at = (digest: string) => order.indexOf(digest);
    assert.equal(order.length, 5);
    assert.equal(at(nested.digest), 4);
    assert.equal(at(multi.manifest.digest), 3);
  });

  void it("of indexes without all children are refused by a hosted registry only", async (test) => {
    const tree = await treeOf(test);
    const [first] = multi.images;
    assert(first !== undefined);
    tree.putImage("app", first);
    tree.putManifest("app", multi.manifest, "multi");
    tree.putManifest("app", buildIndex([app]).manifest, "none");
    const hosted = await dryRun(tree);
    assert.deepEqual(hosted.problems.map(({ name }) => name).toSorted(), [
      "app:multi",
      "app:none",
    ]);
    const mirrored = await dryRun(tree, { takesParts: true });
    assert.deepEqual(mirrored.problems, []);
    assert.equal(mirrored.counts.incomplete, 1);
  });
});
