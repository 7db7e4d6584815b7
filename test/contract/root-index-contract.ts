import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BlobRecord } from "../../src/storage/blob-index.ts";
import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import type { IndexCursor } from "../../src/storage/index-cursor.ts";
import type { ImagePage, RootRow } from "../../src/storage/root-index.ts";
import type { Digest } from "../../src/oci/digest.ts";
import {
  type Reference,
  referenceText,
  type RepositoryKey,
} from "../../src/oci/reference.ts";
import type { AfterTest } from "../support/after-test.ts";
import {
  blob,
  child,
  indexOf,
  keyOf,
  layer,
  manifestOf,
  named,
  tag,
} from "./metadata-index-contract.ts";

const alpine = keyOf("docker.io", "library/alpine");
const busybox = keyOf("docker.io", "library/busybox");
const quay = keyOf("quay.io", "library/alpine");
const latest = tag("latest");
const NO_IMAGES: ImagePage = { images: [], next: undefined };
const NOTHING: ReadonlySet<Digest> = new Set();

/** The requirements for roots, their graphs, pins and eviction. `make` returns an empty index. */
export function rootIndexContract(
  name: string,
  make: (test: AfterTest) => Promise<MetadataIndex>,
): void {
  void describe(`root index contract: ${name}`, () => {
    void it("has no root at first", async (test) => {
      const index = await make(test);
      assert.deepEqual(await index.listOldestRoots(10, undefined), {
        roots: [],
        next: undefined,
      });
      assert.deepEqual(await index.listImages(10, undefined), NO_IMAGES);
      assert.equal(await index.getNode(named("any")), undefined);
      assert.equal(await index.dropRoot(alpine, byTag("latest")), false);
      assert.equal(await index.setPinned(alpine, byTag("latest"), true), false);
      assert.deepEqual(await index.listCondemned(10, NOTHING), []);
      await index.forgetCondemned([named("any")]);
    });

    void it("makes a root of a tag, or of a manifest without a tag", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 5);
      assert.deepEqual(await oldest(index), ["alpine@first 5"]);
      await index.putTag(alpine, latest, named("first"), 6);
      assert.deepEqual(await oldest(index), ["alpine:latest 6"]);
      await index.removeTag(alpine, latest);
      assert.deepEqual(await oldest(index), ["alpine@first 6"]);
    });

    void it("keeps the old digest of a moved tag as a root, with the time of its last pull", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 5);
      await index.putTag(alpine, latest, named("first"), 5);
      await pull(index, alpine, "second", ["a"], 9);
      await index.putTag(alpine, latest, named("second"), 9);
      index.touchTag(alpine, latest, 10);
      await index.settleUses();
      assert.deepEqual(await oldest(index), [
        "alpine@first 5",
        "alpine:latest 10",
      ]);
    });

    void it("makes no root of a manifest that an index of the repository names", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "amd64", ["a"], 5);
      await pull(index, busybox, "amd64", ["a"], 6);
      await index.recordBlob(alpine, {
        ...indexOf(named("list"), [child("amd64"), child("arm64")]),
        storedAtMs: 7,
      });
      await index.putTag(alpine, latest, named("list"), 7);
      await pull(index, alpine, "arm64", ["b"], 8);
      assert.deepEqual(await oldest(index), [
        "busybox@amd64 6",
        "alpine:latest 7",
      ]);
    });

    void it("makes a root of a blob until a manifest names it", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, {
        ...blob(named("a"), 10),
        storedAtMs: 3,
      });
      assert.deepEqual(await oldest(index), ["alpine@a 3"]);
      assert.deepEqual(await index.listImages(10, undefined), NO_IMAGES);
      index.touchBlob(named("a"), 4);
      await index.settleUses();
      assert.deepEqual(await oldest(index), ["alpine@a 4"]);
      await index.recordBlob(busybox, {
        ...manifestOf(named("manifest"), [layer("a")]),
        storedAtMs: 5,
      });
      assert.deepEqual(await oldest(index), ["busybox@manifest 5"]);
    });

    void it("keeps adopted content as unclaimed roots until a repository needs it", async (test) => {
      const index = await make(test);
      await index.adoptBlob(blob(named("a"), 10));
      await index.adoptBlob(manifestOf(named("manifest"), [layer("b")]));
      assert.deepEqual(await oldest(index), ["@a 1", "@manifest 1"]);
      assert.deepEqual(await index.listImages(10, undefined), NO_IMAGES);
      assert.deepEqual(await index.listRepositories(10, undefined), []);
      await index.putTag(alpine, latest, named("manifest"), 2);
      assert.deepEqual(await oldest(index), ["@a 1", "alpine:latest 2"]);
      await index.recordBlob(alpine, manifestOf(named("other"), [layer("a")]));
      assert.deepEqual(await oldest(index), [
        "alpine@other 1",
        "alpine:latest 2",
      ]);
    });

    void it("marks every root of the repository above a manifest as used", async (test) => {
      const index = await make(test);
      for (const key of [alpine, quay]) {
        await index.recordBlob(key, indexOf(named("list"), [child("amd64")]));
        await index.putTag(key, latest, named("list"), 1);
        await index.putTag(key, tag("3"), named("list"), 1);
        await pull(index, key, "amd64", ["a"], 1);
      }
      await pull(index, alpine, "alone", [], 1);
      index.touchManifest(alpine, named("amd64"), 20);
      index.touchManifest(alpine, named("alone"), 21);
      index.touchManifest(alpine, named("absent"), 22);
      index.touchTag(quay, latest, 23);
      await index.settleUses();
      assert.deepEqual(
        await oldest(index),
        [
          "docker.io/library/alpine:3 20",
          "docker.io/library/alpine:latest 20",
          "docker.io/library/alpine@alone 21",
          "quay.io/library/alpine:3 23",
          "quay.io/library/alpine:latest 23",
        ].map(short),
      );
    });

    void it("lists the oldest roots in pages", async (test) => {
      const index = await make(test);
      const want: string[] = [];
      for (let i = 0; i < 7; i++) {
        await pull(index, alpine, `m${i}`, [], 10 + i);
        if (i % 2 === 0) {
          await index.putTag(alpine, tag(`t${i}`), named(`m${i}`), 10 + i);
        }
        want.push(
          i % 2 === 0 ? `alpine:t${i} ${10 + i}` : `alpine@m${i} ${10 + i}`,
        );
      }
      for (const limit of [1, 2, 3, 7, 20]) {
        assert.deepEqual(await oldest(index, limit), want, `pages of ${limit}`);
      }
    });

    void it("lists images by name in pages", async (test) => {
      const index = await make(test);
      for (const key of [quay, busybox, alpine]) {
        await pull(index, key, "one", ["a"], 1);
        await index.putTag(key, tag("b"), named("one"), 1);
        await index.putTag(key, tag("a"), named("one"), 1);
        await pull(index, key, "two", ["a"], 2);
      }
      const want = [alpine, busybox, quay].flatMap((key) =>
        [":a", ":b", "@two"].map((end) =>
          short(`${key.upstream}/${key.repository}${end}`),
        ),
      );
      for (const limit of [1, 2, 4, 20]) {
        const got: string[] = [];
        let next: IndexCursor | undefined;
        do {
          const page = await index.listImages(limit, next);
          assert.ok(page.images.length <= limit);
          got.push(...page.images.map(textOf));
          ({ next } = page);
        } while (next !== undefined);
        assert.deepEqual(got, want, `pages of ${limit}`);
      }
      const root = await index.getRoot(quay, byTag("a"));
      assert.equal(root?.digest, named("one"));
      assert.equal(await index.getRoot(quay, byTag("z")), undefined);
      assert.equal(
        await index.getRoot(quay, { kind: "digest", digest: named("one") }),
        undefined,
      );
    });

    void it("lists the images after any number of repositories without images", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 1);
      for (let n = 0; n < 1_500; n += 1) {
        await index.link(keyOf("m.example", `gone/${n}`), named("a"));
      }
      // A blob that no manifest names is a root, but not an image.
      await index.recordBlob(keyOf("m.example", "only-blob"), {
        ...blob(named("only"), 1),
        storedAtMs: 1,
      });
      await pull(index, quay, "last", ["b"], 2);
      const found: Digest[] = [];
      let after: IndexCursor | undefined;
      do {
        const page = await index.listImages(10, after);
        found.push(...page.images.map(({ digest }) => digest));
        after = page.next;
      } while (after !== undefined);
      assert.deepEqual(found, [named("first"), named("last")]);
    });

    void it("lists the images after a name, whether or not it is stored", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "one", ["a"], 1);
      await index.putTag(alpine, tag("a"), named("one"), 1);
      await index.putTag(alpine, tag("c"), named("one"), 1);
      await pull(index, quay, "two", ["a"], 2);
      const listAfter = async (key: RepositoryKey, reference: Reference) =>
        (await index.listImages(10, { key, reference })).images.map(textOf);
      const rest = [short("docker.io/library/alpine:c"), "quay@two"];
      assert.deepEqual(await listAfter(alpine, byTag("a")), rest);
      assert.deepEqual(await listAfter(alpine, byTag("b")), rest);
      assert.deepEqual(await listAfter(busybox, byTag("a")), ["quay@two"]);
    });

    void it("counts the holders of the nodes of a graph", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a", "b"], 1);
      await pull(index, quay, "second", ["b"], 1);
      await index.putTag(alpine, latest, named("first"), 1);
      await index.putTag(alpine, tag("3"), named("first"), 1);
      await index.recordBlob(
        alpine,
        manifestOf(named("third"), [layer("b"), layer("absent")]),
      );
      assert.deepEqual(await index.getNode(named("first")), {
        digest: named("first"),
        sizeBytes: 1_000,
        isManifest: true,
        holders: 2,
      });
      const { nodes, next } = await index.listChildren(
        named("third"),
        undefined,
      );
      assert.equal(next, undefined);
      assert.deepEqual(
        nodes.toSorted((x, y) => x.holders - y.holders),
        [
          {
            digest: named("absent"),
            sizeBytes: undefined,
            isManifest: false,
            holders: 0,
          },
          { digest: named("b"), sizeBytes: 10, isManifest: false, holders: 3 },
        ],
      );
    });

    void it("lists the children of a large manifest in pages", async (test) => {
      const index = await make(test);
      const names = Array.from({ length: 600 }, (_, i) => `layer ${i}`);
      await index.recordBlob(
        alpine,
        manifestOf(
          named("wide"),
          names.map((each) => layer(each)),
        ),
      );
      const got = new Set<Digest>();
      let after: IndexCursor | undefined;
      let pages = 0;
      do {
        const page = await index.listChildren(named("wide"), after);
        for (const { digest } of page.nodes) got.add(digest);
        after = page.next;
        pages++;
      } while (after !== undefined);
      assert.deepEqual(got, new Set(names.map(named)));
      assert(pages > 1 && pages < 10);
    });

    void it("condemns a graph level by level, except what other roots need", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, indexOf(named("list"), [child("amd64")]));
      await index.putTag(alpine, latest, named("list"), 1);
      await pull(index, alpine, "amd64", ["a", "shared"], 1);
      await pull(index, quay, "other", ["shared"], 1);
      assert.equal(await index.dropRoot(alpine, byTag("latest")), true);
      const gone: string[] = [];
      for (;;) {
        const batch = await index.listCondemned(10, NOTHING);
        if (batch.length === 0) break;
        gone.push(...batch.map(({ digest }) => nameOf(digest)));
        await index.forgetCondemned(batch.map(({ digest }) => digest));
      }
      assert.deepEqual(gone, ["list", "amd64", "a"]);
      assert.notEqual(await index.getBlob(named("shared")), undefined);
      assert.deepEqual(await oldest(index), ["quay@other 1"]);
      assert.equal((await index.totals()).blobs, 2);
    });

    void it("keeps condemned content that is needed again before its bytes are deleted", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 1);
      await index.putTag(alpine, latest, named("first"), 1);
      await index.dropRoot(alpine, byTag("latest"));
      assert.equal((await index.listCondemned(1, NOTHING)).length, 1);
      assert.deepEqual(
        await index.listCondemned(9, new Set([named("first")])),
        [],
      );
      await index.putTag(alpine, latest, named("first"), 2);
      assert.deepEqual(await index.listCondemned(9, NOTHING), []);
      await index.removeTag(alpine, latest);
      assert.deepEqual(await index.listCondemned(9, NOTHING), []);
    });

    void it("drops a root only if it was neither used nor pinned since", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 1);
      await index.putTag(alpine, latest, named("first"), 1);
      index.touchTag(alpine, latest, 2);
      assert.equal(await index.dropRoot(alpine, byTag("latest"), 1), false);
      await index.setPinned(alpine, byTag("latest"), true);
      assert.equal(await index.dropRoot(alpine, byTag("latest"), 2), false);
      await index.setPinned(alpine, byTag("latest"), false);
      assert.equal(await index.dropRoot(alpine, byTag("latest"), 2), true);
      assert.equal(await index.getTag(alpine, latest), undefined);
    });

    void it("never lists a pinned root among the oldest, whether the tag or the digest is pinned", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 1);
      await index.putTag(alpine, latest, named("first"), 1);
      const digest = { kind: "digest", digest: named("first") } as const;
      assert.equal(await index.setPinned(alpine, byTag("latest"), true), true);
      assert.equal(await index.setPinned(alpine, digest, true), true);
      assert.equal(await index.setPinned(quay, digest, true), false);
      assert.deepEqual(await oldest(index), []);
      assert.equal(await index.setPinned(alpine, byTag("latest"), false), true);
      assert.deepEqual(await oldest(index), ["alpine:latest 1"]);
      assert.equal((await index.listImages(9, undefined)).images.length, 2);
      assert.equal(await index.setPinned(alpine, digest, false), true);
      assert.equal((await index.listImages(9, undefined)).images.length, 1);
    });

    void it("moves the pin of a removed tag to its digest", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 1);
      await index.putTag(alpine, latest, named("first"), 1);
      await index.setPinned(alpine, byTag("latest"), true);
      await index.removeTag(alpine, latest);
      assert.deepEqual(await oldest(index), []);
      const [root] = (await index.listImages(9, undefined)).images;
      assert.equal(root?.isPinned, true);
      assert.equal(root?.digest, named("first"));
    });

    void it("keeps the pin of a tag whose manifest is lost, and restores it with the tag", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 1);
      await index.putTag(alpine, latest, named("first"), 1);
      await index.setPinned(alpine, byTag("latest"), true);
      assert.deepEqual(await index.listLostPins(9), []);
      await index.forgetBlob(named("first"));
      const lost = [{ key: alpine, reference: byTag("latest") }];
      assert.deepEqual(await index.listLostPins(9), lost);
      assert.equal(await index.getRoot(alpine, byTag("latest")), undefined);
      assert.equal(await index.setPinned(alpine, byTag("latest"), true), true);
      assert.deepEqual(await index.listLostPins(9), lost);
      await pull(index, alpine, "second", ["a"], 2);
      await index.putTag(alpine, latest, named("second"), 2);
      assert.deepEqual(await index.listLostPins(9), []);
      const root = await index.getRoot(alpine, byTag("latest"));
      assert.equal(root?.isPinned, true);
    });

    void it("keeps the pin of a lost digest for the repository that pinned it", async (test) => {
      const index = await make(test);
      const digest = { kind: "digest", digest: named("first") } as const;
      await pull(index, alpine, "first", ["a"], 1);
      await index.setPinned(alpine, digest, true);
      await index.forgetBlob(named("first"));
      assert.deepEqual(await index.listLostPins(9), [
        { key: alpine, reference: digest },
      ]);
      await pull(index, quay, "first", ["a"], 2);
      assert.equal((await index.listLostPins(9)).length, 1);
      await index.link(alpine, named("first"));
      assert.deepEqual(await index.listLostPins(9), []);
      assert.equal((await index.getRoot(alpine, digest))?.isPinned, true);
      assert.equal((await index.getRoot(quay, digest))?.isPinned, false);
    });

    void it("removes a lost pin by an unpin and by dropping the root", async (test) => {
      const index = await make(test);
      for (const text of ["one", "two"]) {
        await index.keepLostPin(alpine, byTag(text));
        await index.keepLostPin(alpine, byTag(text));
      }
      assert.equal((await index.listLostPins(9)).length, 2);
      assert.equal((await index.listLostPins(1)).length, 1);
      assert.equal(await index.dropRoot(alpine, byTag("one"), 1), false);
      assert.equal(await index.dropRoot(alpine, byTag("one")), true);
      assert.equal(await index.dropRoot(alpine, byTag("one")), false);
      assert.equal(await index.setPinned(alpine, byTag("two"), false), true);
      assert.equal(await index.setPinned(alpine, byTag("two"), false), false);
      assert.deepEqual(await index.listLostPins(9), []);
      await pull(index, alpine, "first", ["a"], 1);
      await index.putTag(alpine, tag("two"), named("first"), 1);
      const root = await index.getRoot(alpine, byTag("two"));
      assert.equal(root?.isPinned, false);
    });

    void it("keeps a pin that was set while the manifest was condemned", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a"], 1);
      await index.putTag(alpine, latest, named("first"), 1);
      await index.dropRoot(alpine, byTag("latest"));
      await index.putTag(alpine, latest, named("first"), 2);
      await index.setPinned(alpine, byTag("latest"), true);
      await index.forgetCondemned([named("first")]);
      assert.deepEqual(await index.listLostPins(9), [
        { key: alpine, reference: byTag("latest") },
      ]);
    });

    void it("makes roots of the blobs of a lost manifest", async (test) => {
      const index = await make(test);
      await pull(index, alpine, "first", ["a", "shared"], 4);
      await pull(index, quay, "second", ["shared"], 5);
      await index.forgetBlob(named("first"));
      assert.deepEqual(await oldest(index), ["alpine@a 4", "quay@second 5"]);
      await pull(index, alpine, "first", ["a", "shared"], 6);
      assert.deepEqual(await oldest(index), [
        "quay@second 5",
        "alpine@first 6",
      ]);
    });
  });
}

/** Records a manifest, then its layers of 10 bytes. */
async function pull(
  index: MetadataIndex,
  key: RepositoryKey,
  manifest: string,
  layers: readonly string[],
  atMs: number,
): Promise<void> {
  const at = (record: BlobRecord): BlobRecord => ({
    ...record,
    storedAtMs: atMs,
  });
  nameOf(named(manifest), manifest);
  await index.recordBlob(
    key,
    at(
      manifestOf(
        named(manifest),
        layers.map((each) => layer(each)),
      ),
    ),
  );
  for (const each of layers) {
    nameOf(named(each), each);
    await index.recordBlob(key, at(blob(named(each), 10)));
  }
}

const names = new Map<Digest, string>(
  ["list", "a", "manifest", "other"].map((text) => [named(text), text]),
);

function nameOf(digest: Digest, text?: string): string {
  if (text !== undefined) names.set(digest, text);
  return names.get(digest) ?? digest;
}

function byTag(text: string) {
  return { kind: "tag", tag: tag(text) } as const;
}

async function oldest(index: MetadataIndex, limit = 10): Promise<string[]> {
  const found: string[] = [];
  let after: IndexCursor | undefined;
  do {
    const page = await index.listOldestRoots(limit, after);
    found.push(...page.roots.map((root) => `${textOf(root)} ${root.usedAtMs}`));
    after = page.next;
  } while (after !== undefined);
  return found;
}

function textOf({ key, reference }: RootRow): string {
  const end =
    reference.kind === "tag"
      ? `:${referenceText(reference)}`
      : `@${nameOf(reference.digest)}`;
  return short(`${key.upstream}/${key.repository}${end}`);
}

function short(text: string): string {
  return text
    .replace("docker.io/library/", "")
    .replace("quay.io/library/alpine", "quay")
    .replace(/^\//, "");
}
