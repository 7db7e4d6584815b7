import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BlobRecord } from "../../src/storage/blob-index.ts";
import type { ReferrersRow } from "../../src/storage/list-index.ts";
import {
  IndexError,
  type MetadataIndex,
} from "../../src/storage/metadata-index.ts";
import type { ChildDescriptor } from "../../src/oci/descriptor.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import {
  parseRepositoryName,
  parseTag,
  type RepositoryKey,
  type Tag,
} from "../../src/oci/reference.ts";
import type { AfterTest } from "../support/after-test.ts";

const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

const alpine = keyOf("docker.io", "library/alpine");
const busybox = keyOf("docker.io", "library/busybox");
const quay = keyOf("quay.io", "library/alpine");

/** The requirements of every implementation. `make` returns an empty index, which is closed after the test. */
export function metadataIndexContract(
  name: string,
  make: (test: AfterTest) => Promise<MetadataIndex>,
): void {
  void describe(`metadata index contract: ${name}`, () => {
    void it("is empty at first", async (test) => {
      const index = await make(test);
      const digest = named("anything");
      assert.equal(await index.getBlob(digest), undefined);
      assert.equal(await index.getLinkedBlob(alpine, digest), undefined);
      assert.equal(await index.getUpstreamBlob("docker.io", digest), undefined);
      assert.equal(await index.getTag(alpine, tag("latest")), undefined);
      assert.equal(await index.findDescriptor(alpine, digest), undefined);
      assert.equal(await index.isComplete(alpine, digest, "repository"), false);
      assert.equal(await index.getReferrers(alpine, digest), undefined);
      assert.deepEqual(await index.listTags(alpine, 10, undefined), []);
      assert.deepEqual(await index.listRepositories(10, undefined), []);
      assert.deepEqual(await index.totals(), totals(0, 0, 0, 0));
      await index.forgetBlob(digest);
      await index.removeTag(alpine, tag("latest"));
      await index.link(alpine, digest);
      assert.deepEqual(await index.listRepositories(10, undefined), []);
      await index.probe();
    });

    void it("returns a blob only for the repositories that it is linked to", async (test) => {
      const index = await make(test);
      for (const digest of [named("layer"), digestOf(Buffer.of(1), "sha512")]) {
        await index.recordBlob(alpine, blob(digest, 5_000_000_000));
        const row = {
          digest,
          sizeBytes: 5_000_000_000,
          mediaType: undefined,
          storedAtMs: 1,
          verifiedAtMs: 1,
        };
        assert.deepEqual(await index.getBlob(digest), row);
        assert.deepEqual(await index.getLinkedBlob(alpine, digest), row);
        assert.equal(await index.getLinkedBlob(busybox, digest), undefined);
        assert(await index.getUpstreamBlob("docker.io", digest));
        assert.equal(await index.getUpstreamBlob("quay.io", digest), undefined);
        await index.link(quay, digest);
        await index.link(quay, digest);
        assert.deepEqual(await index.getLinkedBlob(quay, digest), row);
        assert(await index.getUpstreamBlob("quay.io", digest));
      }
      assert.deepEqual(await index.listRepositories(10, undefined), [
        alpine,
        quay,
      ]);
    });

    void it("returns the media type from each repository's own upstream", async (test) => {
      const index = await make(test);
      const manifest = manifestOf(named("untyped"), []);
      const { digest } = manifest;
      const docker = "application/vnd.docker.distribution.manifest.v2+json";
      await index.recordBlob(alpine, manifest);
      await index.link(busybox, digest);
      await index.recordBlob(quay, {
        ...manifest,
        manifest: {
          mediaType: docker,
          children: [],
          subject: undefined,
        },
      });
      const types = async () => ({
        alpine: (await index.getLinkedBlob(alpine, digest))?.mediaType,
        busybox: (await index.getLinkedBlob(busybox, digest))?.mediaType,
        quay: (await index.getLinkedBlob(quay, digest))?.mediaType,
      });
      const first = { alpine: OCI_MANIFEST, busybox: OCI_MANIFEST };
      assert.deepEqual(await types(), { ...first, quay: docker });
      const inUpstream = await index.getUpstreamBlob("quay.io", digest);
      assert.equal(inUpstream?.mediaType, docker);
      for (const key of [alpine, quay]) {
        await index.putTag(key, tag("v"), digest, 1);
      }
      assert.deepEqual(
        [
          (await index.getTag(alpine, tag("v")))?.mediaType,
          (await index.getTag(quay, tag("v")))?.mediaType,
        ],
        [OCI_MANIFEST, docker],
      );
      await index.link(quay, digest, OCI_MANIFEST);
      await index.link(busybox, digest, docker);
      assert.deepEqual(await types(), {
        alpine: OCI_MANIFEST,
        busybox: docker,
        quay: OCI_MANIFEST,
      });
    });

    void it("keeps the time of the last verification of a stored blob", async (test) => {
      const index = await make(test);
      const [one, other] = [named("one"), named("other")];
      await index.recordBlob(alpine, blob(one, 5));
      await index.getLinkedBlob(alpine, one);
      await index.noteVerified([one, other], 9);
      await index.noteVerified([one], 7);
      assert.equal((await index.getBlob(one))?.verifiedAtMs, 9);
      assert.equal((await index.getLinkedBlob(alpine, one))?.verifiedAtMs, 9);
      const inUpstream = await index.getUpstreamBlob(alpine.upstream, one);
      assert.equal(inUpstream?.verifiedAtMs, 9);
      await index.recordBlob(alpine, { ...blob(one, 5), storedAtMs: 12 });
      assert.equal((await index.getBlob(one))?.verifiedAtMs, 12);
      await index.recordBlob(alpine, blob(other, 5));
      assert.equal((await index.getBlob(other))?.verifiedAtMs, 1);
    });

    void it("lists an intent until its blob is recorded or the intent is dropped", async (test) => {
      const index = await make(test);
      const [layerDigest, manifest] = [named("layer"), named("manifest")];
      await index.beginFill(alpine, { digest: layerDigest, sizeBytes: 7 });
      await index.beginFill(busybox, {
        digest: manifest,
        sizeBytes: 9,
        mediaType: OCI_MANIFEST,
      });
      assert.deepEqual(await index.listIntents(), [
        { key: alpine, digest: layerDigest, sizeBytes: 7 },
        {
          key: busybox,
          digest: manifest,
          sizeBytes: 9,
          mediaType: OCI_MANIFEST,
        },
      ]);
      assert.equal((await index.totals()).blobs, 0);
      await index.recordBlob(alpine, blob(layerDigest, 7));
      await index.dropIntent(manifest);
      assert.deepEqual(await index.listIntents(), []);
    });

    void it("adopts a blob without a link to any repository", async (test) => {
      const index = await make(test);
      const manifest = manifestOf(named("manifest"), [layer("layer")]);
      await index.adoptBlob(manifest);
      assert.equal(
        (await index.getBlob(manifest.digest))?.mediaType,
        OCI_MANIFEST,
      );
      assert.equal(
        await index.getLinkedBlob(alpine, manifest.digest),
        undefined,
      );
      await index.link(alpine, manifest.digest);
      assert.notEqual(
        await index.getLinkedBlob(alpine, manifest.digest),
        undefined,
      );
    });

    void it("recalls a row until the next write", async (test) => {
      const index = await make(test);
      const manifest = named("manifest");
      const latest = tag("latest");
      await index.recordBlob(alpine, manifestOf(manifest, []));
      await index.putTag(alpine, latest, manifest, 1_000);
      const writes = [
        () => index.link(busybox, manifest),
        () => index.putTag(alpine, latest, manifest, 2_000),
        () => index.recordBlob(alpine, blob(named("layer"), 10)),
        () =>
          index.putReferrers(alpine, manifest, {
            body: Buffer.from("{}"),
            verifiedAtMs: 1,
          }),
        () => index.removeTag(alpine, latest),
        () => index.forgetBlob(manifest),
      ];
      for (const write of writes) {
        const blobRow = await index.getLinkedBlob(alpine, manifest);
        const tagRow = await index.getTag(alpine, latest);
        // Whether a row is in memory is up to the index; if it is, it must be current.
        const recalledBlob = index.recallLinkedBlob(alpine, manifest);
        if (recalledBlob !== undefined) assert.deepEqual(recalledBlob, blobRow);
        const recalledTag = index.recallTag(alpine, latest);
        if (recalledTag !== undefined) assert.deepEqual(recalledTag, tagRow);
        assert.equal(index.recallLinkedBlob(busybox, manifest), undefined);
        assert.equal(index.recallTag(busybox, latest), undefined);
        await write();
        assert.equal(index.recallLinkedBlob(alpine, manifest), undefined);
        assert.equal(index.recallTag(alpine, latest), undefined);
      }
      assert.equal(await index.getLinkedBlob(alpine, manifest), undefined);
      assert.equal(await index.getTag(alpine, latest), undefined);
    });

    void it("keeps a manifest that is recorded as a blob later", async (test) => {
      const index = await make(test);
      const manifest = named("manifest");
      await index.recordBlob(alpine, manifestOf(manifest, [layer("layer")]));
      await index.recordBlob(busybox, blob(manifest, 1_000));
      assert.deepEqual(await index.getLinkedBlob(busybox, manifest), {
        digest: manifest,
        sizeBytes: 1_000,
        mediaType: OCI_MANIFEST,
        storedAtMs: 1,
        verifiedAtMs: 1,
      });
      assert.equal((await index.totals()).manifests, 1);
    });

    void it("points tags, and keeps fetchedAtMs if the digest is the same", async (test) => {
      const index = await make(test);
      const [first, second] = [named("first"), named("second")];
      await index.recordBlob(alpine, manifestOf(first, []));
      await index.recordBlob(alpine, manifestOf(second, []));
      const latest = tag("latest");
      const row = {
        sizeBytes: 1_000,
        mediaType: OCI_MANIFEST,
        goneAtMs: undefined,
        isPinned: false,
      };
      await index.putTag(alpine, latest, first, 1_000);
      await index.putTag(alpine, latest, first, 2_000);
      assert.deepEqual(await index.getTag(alpine, latest), {
        ...row,
        digest: first,
        fetchedAtMs: 1_000,
        verifiedAtMs: 2_000,
      });
      await index.putTag(alpine, latest, second, 3_000);
      assert.deepEqual(await index.getTag(alpine, latest), {
        ...row,
        digest: second,
        fetchedAtMs: 3_000,
        verifiedAtMs: 3_000,
      });
      await index.putTag(alpine, latest, first, 0, 3_500);
      assert.deepEqual(await index.getTag(alpine, latest), {
        ...row,
        digest: first,
        fetchedAtMs: 3_500,
        verifiedAtMs: 0,
      });
      await index.putTag(alpine, latest, second, 3_000);
      assert.equal(await index.getTag(quay, latest), undefined);
      assert.deepEqual(await index.totals(), totals(2, 2_000, 2, 1));
      await index.markTagGone(alpine, latest, 4_000);
      await index.markTagGone(quay, latest, 4_000);
      await index.setPinned(alpine, { kind: "tag", tag: latest }, true);
      const gone = await index.getTag(alpine, latest);
      assert.deepEqual([gone?.goneAtMs, gone?.isPinned], [4_000, true]);
      assert.deepEqual(index.recallTag(alpine, latest), gone);
      await index.putTag(alpine, latest, second, 5_000);
      const back = await index.getTag(alpine, latest);
      assert.deepEqual([back?.goneAtMs, back?.isPinned], [undefined, true]);
      await index.removeTag(alpine, latest);
      assert.equal(await index.getTag(alpine, latest), undefined);
      assert.notEqual(await index.getBlob(second), undefined);
      assert.deepEqual(await index.totals(), totals(2, 2_000, 2, 0));
    });

    void it("rejects a tag that points to anything but a stored manifest", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, blob(named("blob"), 1));
      for (const digest of [named("blob"), named("absent")]) {
        await assert.rejects(
          index.putTag(alpine, tag("latest"), digest, 1),
          IndexError,
        );
      }
      assert.equal((await index.totals()).tags, 0);
    });

    void it("lists tags in ASCII order, in pages", async (test) => {
      const index = await make(test);
      const manifest = named("manifest");
      await index.recordBlob(alpine, manifestOf(manifest, []));
      for (const text of ["b", "3.20", "_x", "B", "a-1", "a", "a.1", "3.3"]) {
        await index.putTag(alpine, tag(text), manifest, 1);
      }
      const all = ["3.20", "3.3", "B", "_x", "a", "a-1", "a.1", "b"];
      assert.deepEqual(await index.listTags(alpine, 100, undefined), all);
      assert.deepEqual(
        await index.listTags(alpine, 3, undefined),
        all.slice(0, 3),
      );
      assert.deepEqual(await index.listTags(alpine, 3, "3.3"), [
        "B",
        "_x",
        "a",
      ]);
      assert.deepEqual(await index.listTags(alpine, 3, "a.0"), ["a.1", "b"]);
      assert.deepEqual(await index.listTags(alpine, 3, "b"), []);
    });

    void it("lists repositories in the order of their paths, in pages", async (test) => {
      const index = await make(test);
      const keys = [
        keyOf("a-b.io", "x"),
        keyOf("a.io", "x"),
        keyOf("a.io", "x-y"),
        keyOf("a.io", "x/y"),
        keyOf("a.io:5000", "x"),
      ];
      const digest = named("blob");
      for (const key of keys.toReversed()) {
        await index.recordBlob(key, blob(digest, 1));
      }
      const sorted = keys
        .map((key) => `${key.upstream}/${key.repository}`)
        .sort();
      const list = async (limit: number, last?: string): Promise<string[]> =>
        (await index.listRepositories(limit, last)).map(
          (key) => `${key.upstream}/${key.repository}`,
        );
      assert.deepEqual(await list(100), sorted);
      assert.deepEqual(await list(2), sorted.slice(0, 2));
      assert.deepEqual(await list(2, sorted[1]), sorted.slice(2, 4));
      await index.forgetBlob(digest);
      assert.deepEqual(await list(100), []);
    });

    void it("forgets a blob with its links, edges and tags", async (test) => {
      const index = await make(test);
      const manifest = named("manifest");
      await index.recordBlob(alpine, blob(named("layer"), 10));
      await index.recordBlob(alpine, manifestOf(manifest, [layer("layer")]));
      await index.putTag(alpine, tag("latest"), manifest, 1);
      await index.forgetBlob(manifest);
      assert.equal(await index.getBlob(manifest), undefined);
      assert.equal(await index.getTag(alpine, tag("latest")), undefined);
      assert.equal(
        await index.findDescriptor(alpine, named("layer")),
        undefined,
      );
      assert.notEqual(
        await index.getLinkedBlob(alpine, named("layer")),
        undefined,
      );
      assert.deepEqual(await index.totals(), totals(1, 10, 0, 0));
      await index.recordBlob(busybox, manifestOf(manifest, []));
      assert.equal(await index.getLinkedBlob(alpine, manifest), undefined);
    });

    void it("counts a blob that is recorded twice once, with its newest size", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, blob(named("layer"), 10));
      await index.recordBlob(busybox, blob(named("layer"), 12));
      assert.deepEqual(await index.totals(), totals(1, 12, 0, 0));
    });

    void it("finds the descriptor of a child in a manifest linked to the repository", async (test) => {
      const index = await make(test);
      const only = layer("layer");
      await index.recordBlob(alpine, manifestOf(named("manifest"), [only]));
      assert.deepEqual(await index.findDescriptor(alpine, only.digest), {
        digest: only.digest,
        sizeBytes: only.sizeBytes,
        mediaType: OCI_LAYER,
      });
      assert.equal(await index.findDescriptor(busybox, only.digest), undefined);
      await index.link(busybox, named("manifest"));
      assert.notEqual(
        await index.findDescriptor(busybox, only.digest),
        undefined,
      );
    });

    void it("replaces the children of a manifest that is recorded again", async (test) => {
      const index = await make(test);
      const manifest = named("manifest");
      await index.recordBlob(alpine, manifestOf(manifest, [layer("old")]));
      await index.recordBlob(alpine, manifestOf(manifest, [layer("new")]));
      assert.equal(await index.findDescriptor(alpine, named("old")), undefined);
      assert.notEqual(
        await index.findDescriptor(alpine, named("new")),
        undefined,
      );
    });

    void it("reports a manifest as complete if all its blobs except foreign ones are linked", async (test) => {
      const index = await make(test);
      const manifest = named("manifest");
      await index.recordBlob(
        alpine,
        manifestOf(manifest, [
          layer("one"),
          layer("two"),
          layer("foreign", { isForeign: true }),
          layer("two", { isForeign: true }),
        ]),
      );
      assert.equal(
        await index.isComplete(alpine, manifest, "repository"),
        false,
      );
      await index.recordBlob(alpine, blob(named("one"), 1));
      await index.recordBlob(busybox, blob(named("two"), 1));
      assert.equal(
        await index.isComplete(alpine, manifest, "repository"),
        false,
      );
      assert.equal(await index.isComplete(alpine, manifest, "upstream"), true);
      await index.link(alpine, named("two"));
      assert.equal(
        await index.isComplete(alpine, manifest, "repository"),
        true,
      );
      assert.equal(
        await index.isComplete(busybox, manifest, "repository"),
        false,
      );
      assert.equal(
        await index.isComplete(busybox, manifest, "upstream"),
        false,
      );
      assert.equal(
        await index.isComplete(alpine, named("one"), "repository"),
        false,
      );
      await index.forgetBlob(named("one"));
      assert.equal(
        await index.isComplete(alpine, manifest, "repository"),
        false,
      );
    });

    void it("reports an index as complete if one child is", async (test) => {
      const index = await make(test);
      const root = named("index");
      await index.recordBlob(
        alpine,
        indexOf(root, [child("amd64"), child("arm64"), child("absent")]),
      );
      assert.equal(await index.isComplete(alpine, root, "repository"), false);
      await index.recordBlob(
        alpine,
        manifestOf(named("amd64"), [layer("one")]),
      );
      await index.recordBlob(
        busybox,
        manifestOf(named("arm64"), [layer("two")]),
      );
      await index.recordBlob(busybox, blob(named("two"), 1));
      assert.equal(await index.isComplete(alpine, root, "repository"), false);
      await index.recordBlob(alpine, blob(named("one"), 1));
      assert.equal(await index.isComplete(alpine, root, "repository"), true);
      await index.forgetBlob(named("amd64"));
      assert.equal(await index.isComplete(alpine, root, "repository"), false);
      await index.link(alpine, named("arm64"));
      await index.link(alpine, named("two"));
      assert.equal(await index.isComplete(alpine, root, "repository"), true);
    });

    void it("follows nested indexes to a depth of four, each once", async (test) => {
      const index = await make(test);
      // 30 indexes per level, each of which names all of the next level: 30^4 paths to the manifest.
      const record = async (texts: string[], children: string[]) => {
        for (const text of texts) {
          await index.recordBlob(
            alpine,
            indexOf(named(text), children.map(child)),
          );
        }
      };
      await index.recordBlob(
        alpine,
        manifestOf(named("leaf"), [layer("missing")]),
      );
      await record(level(1), ["leaf"]);
      await record(level(2), level(1));
      await record(level(3), level(2));
      await record(level(4), level(3));
      await record(["deep"], level(4));
      const complete = async (): Promise<boolean[]> => [
        await index.isComplete(alpine, named("level 4 0"), "repository"),
        await index.isComplete(alpine, named("deep"), "repository"),
      ];
      assert.deepEqual(await complete(), [false, false]);
      await index.recordBlob(alpine, blob(named("missing"), 1));
      assert.deepEqual(await complete(), [true, false]);
    });

    void it("terminates for an index that names itself", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, indexOf(named("self"), [child("self")]));
      assert.equal(
        await index.isComplete(alpine, named("self"), "repository"),
        false,
      );
    });

    void it("keeps the last list of tags of a repository with a link", async (test) => {
      const index = await make(test);
      const rows = [
        { body: Buffer.from("1"), fetchedAtMs: 1 },
        { body: Buffer.from("1 2"), fetchedAtMs: 2 },
      ] as const;
      assert.equal(await index.putTagList(alpine, rows[0]), false);
      await index.recordBlob(alpine, blob(named("blob"), 10));
      assert.equal(await index.getTagList(alpine), undefined);
      for (const row of rows) {
        assert.equal(await index.putTagList(alpine, row), true);
        assert.deepEqual(await index.getTagList(alpine), row);
      }
      assert.equal(await index.getTagList(busybox), undefined);
      assert.deepEqual(await index.totals(), totals(1, 10, 0, 0, 3));
      await index.dropTagList(alpine);
      assert.equal(await index.getTagList(alpine), undefined);
      assert.deepEqual(await index.totals(), totals(1, 10, 0, 0, 0));
    });

    void it("keeps the referrers of linked subjects, counts their bytes, and drops them with the link", async (test) => {
      const index = await make(test);
      const subject = named("subject");
      const rows = [
        { body: Buffer.from("{}"), verifiedAtMs: 1 },
        { body: Buffer.from("[1]"), verifiedAtMs: 2 },
      ] as const;
      const put = (key: RepositoryKey, row: ReferrersRow) =>
        index.putReferrers(key, subject, row);
      assert.equal(await put(alpine, rows[0]), false);
      assert.equal(await index.getReferrers(alpine, subject), undefined);
      await index.recordBlob(alpine, blob(subject, 10));
      for (const row of rows) {
        assert.equal(await put(alpine, row), true);
        assert.deepEqual(await index.getReferrers(alpine, subject), row);
      }
      assert.equal(await put(busybox, rows[0]), false);
      assert.equal(await index.getReferrers(busybox, subject), undefined);
      await index.link(busybox, subject);
      assert.equal(await put(busybox, rows[0]), true);
      assert.deepEqual(await index.totals(), totals(1, 10, 0, 0, 5));
      await index.forgetBlob(subject);
      assert.deepEqual(await index.totals(), totals(0, 0, 0, 0));
      assert.equal(await index.getReferrers(alpine, subject), undefined);
      await index.recordBlob(alpine, blob(subject, 10));
      assert.equal(await index.getReferrers(alpine, subject), undefined);
    });

    void it("drops only repositories without a root, with their links", async (test) => {
      const index = await make(test);
      const manifest = manifestOf(named("manifest"), [layer("layer")]);
      await index.recordBlob(alpine, manifest);
      await index.putTag(alpine, tag("v"), manifest.digest, 1);
      await index.recordBlob(alpine, blob(named("layer"), 10));
      await index.link(busybox, named("layer"));
      await index.recordBlob(quay, blob(named("alone"), 10));
      const before = await index.usedBytes();
      assert(before > 0);
      assert.deepEqual(await index.dropUnrooted(), { rows: 1, isEnd: true });
      assert.deepEqual(await index.dropUnrooted(), { rows: 0, isEnd: true });
      assert.deepEqual(await index.listRepositories(10, undefined), [
        alpine,
        quay,
      ]);
      assert(await index.getLinkedBlob(alpine, named("layer")));
      assert(await index.getLinkedBlob(quay, named("alone")));
      assert.equal(
        await index.getLinkedBlob(busybox, named("layer")),
        undefined,
      );
      await index.link(busybox, named("layer"));
      assert(await index.getLinkedBlob(busybox, named("layer")));
    });

    void it("accepts uses of unknown content, and ignores uses after it is closed", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, manifestOf(named("manifest"), []));
      await index.putTag(alpine, tag("latest"), named("manifest"), 1);
      index.touchBlob(named("manifest"), 5);
      index.touchBlob(named("absent"), 5);
      index.touchTag(alpine, tag("latest"), 5);
      index.touchTag(quay, tag("latest"), 5);
      await index.close();
      index.touchBlob(named("manifest"), 6);
      await index.close();
    });

    void it("rejects with an IndexError once it is closed", async (test) => {
      const index = await make(test);
      await index.close();
      await assert.rejects(index.getBlob(named("any")), IndexError);
      await assert.rejects(
        index.recordBlob(alpine, blob(named("any"), 1)),
        IndexError,
      );
      await assert.rejects(index.probe(), IndexError);
    });
  });
}

/** Returns the names of 30 manifests. */
function level(number: number): string[] {
  return Array.from({ length: 30 }, (_, i) => `level ${number} ${i}`);
}

export function keyOf(upstream: string, name: string): RepositoryKey {
  const repository = parseRepositoryName(name);
  assert(repository !== undefined);
  return { upstream, repository };
}

export function tag(text: string): Tag {
  const parsed = parseTag(text);
  assert(parsed !== undefined);
  return parsed;
}

/** Returns the digest that stands for a name in these tests. */
export function named(text: string): Digest {
  return digestOf(Buffer.from(text));
}

export function blob(digest: Digest, sizeBytes: number): BlobRecord {
  return { digest, sizeBytes, storedAtMs: 1 };
}

export function manifestOf(
  digest: Digest,
  children: readonly ChildDescriptor[],
  mediaType = OCI_MANIFEST,
): BlobRecord {
  return {
    digest,
    sizeBytes: 1_000,
    storedAtMs: 1,
    manifest: { mediaType, children, subject: named("subject") },
  };
}

export function indexOf(
  digest: Digest,
  children: readonly ChildDescriptor[],
): BlobRecord {
  return manifestOf(digest, children, OCI_INDEX);
}

export function layer(
  text: string,
  { isForeign = false }: { isForeign?: boolean } = {},
): ChildDescriptor {
  return {
    digest: named(text),
    sizeBytes: 3_000_000_000,
    mediaType: OCI_LAYER,
    role: "blob",
    isForeign,
  };
}

export function child(text: string): ChildDescriptor {
  return {
    digest: named(text),
    sizeBytes: 1_000,
    mediaType: OCI_MANIFEST,
    role: "manifest",
    isForeign: false,
  };
}

function totals(
  blobs: number,
  blobBytes: number,
  manifests: number,
  tags: number,
  listBytes = 0,
): object {
  return { blobs, blobBytes, manifests, tags, listBytes };
}
