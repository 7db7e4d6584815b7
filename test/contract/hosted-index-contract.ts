import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ChildDescriptor } from "../../src/oci/descriptor.ts";
import type { Digest } from "../../src/oci/digest.ts";
import {
  parseRepositoryName,
  type RepositoryKey,
  type RepositoryName,
  type Tag,
} from "../../src/oci/reference.ts";
import { parseUploadId, type UploadId } from "../../src/storage/blob-store.ts";
import type {
  HostedBlobOutcome,
  HostedManifestOutcome,
  HostedManifestRecord,
  QuotaCondition,
} from "../../src/storage/hosted-index.ts";
import type { MetadataIndex } from "../../src/storage/metadata-index.ts";
import type { AfterTest } from "../support/after-test.ts";
import {
  blob,
  child,
  keyOf,
  layer,
  manifestOf,
  named,
  tag,
} from "./metadata-index-contract.ts";

const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const app = keyOf("local", "team/app");
const web = keyOf("local", "team/web");
const other = keyOf("corp", "team/app");
const alpine = keyOf("docker.io", "library/alpine");
const latest = tag("latest");
const NOTHING: ReadonlySet<Digest> = new Set();
export const UNLIMITED: QuotaCondition = {
  maxBytes: Infinity,
  reservedBytes: 0,
};
const isFirst = (each: Tag): boolean => each === "v1";
const NEVER = (): boolean => false;

/** The requirements for hosted repositories. `make` returns an empty index, which is closed after the test. */
export function hostedIndexContract(
  implementation: string,
  make: (test: AfterTest) => Promise<MetadataIndex>,
): void {
  void describe(`hosted index contract: ${implementation}`, () => {
    void it("has no hosted content at first", async (test) => {
      const index = await make(test);
      assert.deepEqual(await index.listHostedRegistries(), []);
      assert.deepEqual(
        await index.listHostedRepositories("local", 9, undefined),
        [],
      );
      assert.deepEqual(await index.listHostedTags(app, 9, undefined), []);
      assert.deepEqual(
        await index.listUntaggedManifests(app, 9, undefined),
        [],
      );
      assert.deepEqual(
        await index.listBlobRepositories(named("a"), 9, undefined),
        [],
      );
      assert.deepEqual(await index.dropUnneededLinks(99, 9), {
        links: 0,
        isEnd: true,
      });
      assert.deepEqual(await index.previewCollection(99, 9), []);
      assert.equal(await index.claimHostedBlob(app, named("a"), 1), undefined);
      assert.equal(await index.isHosted(named("a")), false);
      const absent = { kind: "absent" } as const;
      assert.deepEqual(await index.deleteHostedTag(app, latest, NEVER), absent);
      assert.deepEqual(
        await index.deleteHostedManifest(app, named("m"), NEVER),
        absent,
      );
      assert.deepEqual(
        await index.unlinkHostedBlob(app, named("a"), NEVER),
        absent,
      );
    });

    void it("links an uploaded blob to its repository only", async (test) => {
      const index = await make(test);
      assert.equal(await upload(index, app, "a", 10), "stored");
      const row = await index.getLinkedBlob(app, named("a"));
      assert.equal(row?.sizeBytes, 10);
      assert.equal(row.mediaType, undefined);
      assert.equal(await index.getLinkedBlob(web, named("a")), undefined);
      assert.equal(await index.getLinkedBlob(other, named("a")), undefined);
      assert.equal(await index.isHosted(named("a")), true);
      assert.deepEqual(await index.listOldestRoots(9, undefined), {
        roots: [],
        next: undefined,
      });
      assert.deepEqual(await index.listRepositories(9, undefined), []);
      assert.deepEqual(await index.listHostedRegistries(), [
        { registry: "local", bytes: 10 },
      ]);
    });

    void it("mounts a blob from a mirrored and from a hosted repository", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, blob(named("a"), 10));
      assert.equal(await mount(index, app, "a", other), "absent");
      assert.equal(await mount(index, app, "absent", alpine), "absent");
      assert.equal(await mount(index, app, "a", alpine), "stored");
      assert.equal(await mount(index, other, "a", app), "stored");
      assert.equal(await mount(index, other, "a", app), "stored");
      for (const key of [app, other]) {
        assert.equal(
          (await index.getLinkedBlob(key, named("a")))?.sizeBytes,
          10,
        );
      }
      assert.deepEqual(
        await index.listBlobRepositories(named("a"), 2, undefined),
        [alpine, app],
      );
      assert.deepEqual(await index.listBlobRepositories(named("a"), 2, app), [
        other,
      ]);
      assert.deepEqual(
        await index.listBlobRepositories(named("a"), 2, web),
        [],
      );
    });

    void it("keeps the blobs of hosted repositories when mirrored content is evicted", async (test) => {
      const index = await make(test);
      await index.recordBlob(alpine, blob(named("a"), 10));
      await index.recordBlob(alpine, blob(named("b"), 10));
      await index.recordBlob(
        alpine,
        manifestOf(named("m"), [layer("a"), layer("b")]),
      );
      await index.putTag(alpine, latest, named("m"), 1);
      await mount(index, app, "a", alpine);
      assert.equal((await index.getNode(named("a")))?.holders, 2);
      assert.equal(
        await index.dropRoot(alpine, { kind: "tag", tag: latest }),
        true,
      );
      assert.deepEqual(await purge(index), ["b", "m"]);
      assert.equal((await index.getLinkedBlob(app, named("a")))?.sizeBytes, 10);
    });

    void it("takes back a condemned blob that is mounted, but not one that is being removed", async (test) => {
      const index = await make(test);
      for (const name of ["a", "b"]) {
        await index.recordBlob(alpine, blob(named(name), 10));
        await index.dropRoot(alpine, { kind: "digest", digest: named(name) });
      }
      assert.equal(await mount(index, app, "a", alpine), "stored");
      assert.deepEqual(names(await index.listCondemned(9, NOTHING)), ["b"]);
      assert.equal(await mount(index, app, "b", alpine), "absent");
      await index.releaseCondemned([named("b")]);
      assert.equal(await mount(index, app, "b", alpine), "stored");
      assert.deepEqual(await index.listCondemned(9, NOTHING), []);
    });

    void it("lists a blob for removal to one caller at a time", async (test) => {
      const index = await make(test);
      for (const name of ["a", "b"]) {
        await index.recordBlob(alpine, blob(named(name), 10));
        await index.dropRoot(alpine, { kind: "digest", digest: named(name) });
      }
      const [first] = await index.listCondemned(1, NOTHING);
      const [second] = await index.listCondemned(9, NOTHING);
      assert.deepEqual(names([first, second]), ["a", "b"]);
      assert.deepEqual(await index.listCondemned(9, NOTHING), []);
      await index.releaseCondemned([named("a")]);
      assert.deepEqual(names(await index.listCondemned(9, NOTHING)), ["a"]);
      await index.forgetCondemned([named("a"), named("b")]);
      assert.deepEqual(await index.listCondemned(9, NOTHING), []);
    });

    void it("keeps a blob that is stored again after its removal began", async (test) => {
      const index = await make(test);
      for (const name of ["a", "b", "m"]) {
        await index.recordBlob(alpine, blob(named(name), 10));
        await index.dropRoot(alpine, { kind: "digest", digest: named(name) });
      }
      await index.listCondemned(9, NOTHING);
      await index.recordBlob(alpine, blob(named("a"), 10));
      await upload(index, app, "b", 10);
      await put(index, app, "m", []);
      await index.releaseCondemned([named("a"), named("b"), named("m")]);
      assert.deepEqual(await index.listCondemned(9, NOTHING), []);
      assert.equal(await mount(index, web, "a", alpine), "stored");
      assert.equal(await mount(index, web, "b", app), "stored");
    });

    void it("gives unclaimed content to the repository that it is pushed to", async (test) => {
      const index = await make(test);
      await index.adoptBlob(blob(named("a"), 10));
      await index.adoptBlob(manifestOf(named("m"), [layer("a")]));
      await upload(index, app, "a", 10);
      await put(index, app, "m", ["a"], ["latest"]);
      assert.deepEqual((await index.listOldestRoots(9, undefined)).roots, []);
      assert.equal((await index.totals()).blobs, 2);
    });

    void it("stores a manifest with several tags, or with none", async (test) => {
      const index = await make(test);
      await upload(index, app, "a", 10);
      assert.deepEqual(
        await put(index, app, "m", ["a"], ["one", "two", "one"], 5),
        {
          kind: "stored",
          tags: [
            { tag: "one", before: undefined },
            { tag: "two", before: undefined },
          ],
        },
      );
      await upload(index, app, "b", 10);
      await put(index, app, "n", ["b"], ["two"], 7);
      assert.deepEqual(await put(index, app, "m", ["a"], ["two"], 8), {
        kind: "stored",
        tags: [{ tag: "two", before: named("n") }],
      });
      await put(index, app, "n", ["b"], [], 9);
      assert.deepEqual(await index.listTags(app, 9, undefined), ["one", "two"]);
      assert.equal((await index.getTag(app, tag("one")))?.digest, named("m"));
      assert.equal(
        (await index.getTag(app, tag("one")))?.mediaType,
        OCI_MANIFEST,
      );
      assert.equal(await index.isComplete(app, named("m"), "repository"), true);
      assert.deepEqual(await index.listHostedTags(app, 9, undefined), [
        { tag: "one", digest: named("m"), pushedAtMs: 5, pulledAtMs: 5 },
        { tag: "two", digest: named("m"), pushedAtMs: 8, pulledAtMs: 8 },
      ]);
      assert.deepEqual(await index.listHostedTags(app, 1, tag("one")), [
        { tag: "two", digest: named("m"), pushedAtMs: 8, pulledAtMs: 8 },
      ]);
      assert.deepEqual(await untagged(index, app), ["n 9"]);
      assert.deepEqual(await index.totals(), {
        blobs: 4,
        blobBytes: 2_020,
        manifests: 2,
        tags: 2,
        listBytes: 0,
      });
      assert.deepEqual((await index.listOldestRoots(9, undefined)).roots, []);
    });

    void it("counts a tag that is pushed again with the same digest as pushed then, and keeps its last pull", async (test) => {
      const index = await make(test);
      await put(index, app, "m", [], ["latest"], 5);
      index.touchTag(app, latest, 20);
      await index.settleUses();
      await put(index, app, "m", [], ["latest"], 9);
      await put(index, app, "m", [], [], 10);
      const [row] = await index.listHostedTags(app, 9, undefined);
      assert.deepEqual(row, {
        tag: latest,
        digest: named("m"),
        pushedAtMs: 9,
        pulledAtMs: 20,
      });
      await put(index, app, "n", [], ["latest"], 30);
      const [moved] = await index.listHostedTags(app, 9, undefined);
      assert.deepEqual(moved, {
        tag: latest,
        digest: named("n"),
        pushedAtMs: 30,
        pulledAtMs: 30,
      });
      index.touchManifest(app, named("n"), 40);
      await index.settleUses();
      assert.equal(
        (await index.listHostedTags(app, 9, undefined))[0]?.pulledAtMs,
        40,
      );
    });

    void it("refuses a manifest that names what the repository does not have", async (test) => {
      const index = await make(test);
      await upload(index, web, "a", 10);
      await upload(index, app, "b", 10);
      assert.deepEqual(
        await put(index, app, "m", ["b", "a"], ["latest"]),
        missing("a"),
      );
      assert.deepEqual(
        await put(index, other, "m", ["b"], ["latest"]),
        missing("b"),
      );
      assert.equal(await index.getTag(app, latest), undefined);
      assert.equal(await index.getBlob(named("m")), undefined);
      assert.deepEqual(
        await putIndex(index, app, "list", ["child"]),
        missing("child"),
      );
      await put(index, app, "child", ["b"]);
      assert.equal(
        (await putIndex(index, app, "list", ["child"], ["latest"])).kind,
        "stored",
      );
      const foreign: HostedManifestRecord = {
        ...record("foreign", [layer("elsewhere", { isForeign: true })]),
        subject: named("absent subject"),
      };
      assert.equal((await putRecord(index, app, foreign)).kind, "stored");
      assert.equal(
        (
          await putRecord(
            index,
            app,
            record("twice", [
              layer("elsewhere", { isForeign: true }),
              layer("elsewhere"),
            ]),
          )
        ).kind,
        "missing",
      );
    });

    void it("moves no immutable tag, and pushes the same digest again", async (test) => {
      const index = await make(test);
      const push = (text: string, tags: readonly string[]) =>
        putRecord(index, app, record(text, []), tags, { isImmutable: isFirst });
      assert.equal((await push("m", ["v1"])).kind, "stored");
      assert.equal((await push("m", ["v1"])).kind, "stored");
      assert.deepEqual(await push("n", ["free", "v1"]), {
        kind: "immutable",
        tag: "v1",
      });
      assert.equal(await index.getTag(app, tag("free")), undefined);
      assert.equal(await index.getBlob(named("n")), undefined);
      assert.deepEqual(await index.deleteHostedTag(app, tag("v1"), isFirst), {
        kind: "immutable",
        tag: "v1",
      });
      // The same tag of another repository.
      assert.equal((await put(index, web, "n", [], ["v1"])).kind, "stored");
    });

    void it("deletes nothing that an immutable tag needs", async (test) => {
      const index = await make(test);
      await upload(index, app, "a", 10);
      await put(index, app, "child", ["a"], ["free"]);
      await putIndex(index, app, "list", ["child"]);
      await putIndex(index, app, "top", ["list"], ["v1"]);
      const refused = { kind: "immutable", tag: "v1" };
      for (const text of ["top", "list", "child"]) {
        assert.deepEqual(
          await index.deleteHostedManifest(app, named(text), isFirst),
          refused,
          text,
        );
      }
      assert.deepEqual(
        await index.unlinkHostedBlob(app, named("a"), isFirst),
        refused,
      );
      assert.equal(
        (await index.deleteHostedTag(app, tag("free"), isFirst)).kind,
        "deleted",
      );
      assert.equal(
        (await index.deleteHostedTag(app, tag("v1"), NEVER)).kind,
        "deleted",
      );
      assert.equal(
        (await index.deleteHostedManifest(app, named("top"), isFirst)).kind,
        "deleted",
      );
      assert.equal(
        (await index.unlinkHostedBlob(app, named("a"), isFirst)).kind,
        "deleted",
      );
      assert.equal(await index.getLinkedBlob(app, named("a")), undefined);
    });

    void it("counts each digest of a registry once for its quota", async (test) => {
      const index = await make(test);
      const quota = { maxBytes: 1_100, reservedBytes: 0 };
      assert.equal(await upload(index, app, "a", 100, quota), "stored");
      assert.equal(await upload(index, web, "a", 100, quota), "stored");
      assert.equal(await upload(index, web, "b", 1_001, quota), "over-quota");
      assert.equal(await index.getBlob(named("b")), undefined);
      const m = record("m", [layer("a")]);
      assert.equal(
        (
          await putRecord(index, app, m, ["latest"], {
            isImmutable: NEVER,
            quota: { maxBytes: 1_100, reservedBytes: 1 },
          })
        ).kind,
        "over-quota",
      );
      assert.equal(
        (await putRecord(index, app, m, [], { isImmutable: NEVER, quota }))
          .kind,
        "stored",
      );
      assert.equal(
        (await putRecord(index, web, m, [], { isImmutable: NEVER, quota }))
          .kind,
        "stored",
      );
      await index.recordBlob(alpine, blob(named("c"), 1));
      assert.equal(await mount(index, app, "c", alpine, quota), "over-quota");
      assert.equal(await mount(index, other, "c", alpine, quota), "stored");
      assert.equal(await upload(index, app, "empty", 0, quota), "stored");
      assert.deepEqual(await index.listHostedRegistries(), [
        { registry: "corp", bytes: 1 },
        { registry: "local", bytes: 1_100 },
      ]);
      await index.deleteHostedManifest(app, named("m"), NEVER);
      await index.unlinkHostedBlob(web, named("a"), NEVER);
      assert.equal(await bytesOf(index, "local"), 1_100);
      await index.deleteHostedManifest(web, named("m"), NEVER);
      assert.equal(await bytesOf(index, "local"), 100);
      await index.forgetBlob(named("a"));
      assert.equal(await bytesOf(index, "local"), 0);
    });

    void it("deletes a tag and keeps its manifest", async (test) => {
      const index = await make(test);
      await put(index, app, "m", [], ["one", "two"], 5);
      assert.deepEqual(await index.deleteHostedTag(app, tag("one"), NEVER), {
        kind: "deleted",
        tags: ["one"],
      });
      assert.deepEqual(await untagged(index, app), []);
      await index.deleteHostedTag(app, tag("two"), NEVER);
      assert.equal(
        (await index.listUntaggedManifests(app, 9, undefined)).length,
        1,
      );
      assert.equal(
        (await index.getLinkedBlob(app, named("m")))?.mediaType,
        OCI_MANIFEST,
      );
      assert.deepEqual(await index.listCondemned(9, NOTHING), []);
      assert.deepEqual(
        await index.listHostedRepositories("local", 9, undefined),
        ["team/app"],
      );
    });

    void it("deletes a manifest with its tags, and frees what only it needed", async (test) => {
      const index = await make(test);
      for (const name of ["a", "shared", "mounted"])
        await upload(index, app, name, 10);
      await put(index, app, "m", ["a", "shared", "mounted"], ["one", "two"]);
      await put(index, app, "n", ["shared"], ["three"]);
      await mount(index, web, "mounted", app);
      assert.deepEqual(
        await index.deleteHostedManifest(app, named("m"), NEVER),
        {
          kind: "deleted",
          tags: ["one", "two"],
        },
      );
      assert.equal(await index.getLinkedBlob(app, named("m")), undefined);
      assert.deepEqual(await index.listTags(app, 9, undefined), ["three"]);
      assert.deepEqual(names(await index.previewCollection(0, 99)), ["a", "m"]);
      assert.deepEqual(await index.dropUnneededLinks(0, 9), {
        links: 2,
        isEnd: true,
      });
      assert.deepEqual(await purge(index), ["a", "m"]);
      assert.equal(
        (await index.getLinkedBlob(app, named("shared")))?.sizeBytes,
        10,
      );
      assert.equal(
        (await index.getLinkedBlob(web, named("mounted")))?.sizeBytes,
        10,
      );
      assert.equal(await index.getLinkedBlob(app, named("mounted")), undefined);
    });

    void it("drops links that no manifest names, once their claims have expired", async (test) => {
      const index = await make(test);
      for (const name of ["a", "b", "c"])
        await upload(index, app, name, 10, UNLIMITED, 100);
      await index.recordBlob(alpine, blob(named("d"), 10));
      await mount(index, app, "d", alpine, UNLIMITED, 100);
      await put(index, app, "m", ["a"], ["latest"]);
      assert.equal(
        (await index.claimHostedBlob(app, named("b"), 200))?.sizeBytes,
        10,
      );
      // Of another repository, so it claims nothing here.
      assert.equal(
        await index.claimHostedBlob(web, named("c"), 200),
        undefined,
      );
      assert.deepEqual(await index.dropUnneededLinks(100, 9), {
        links: 0,
        isEnd: true,
      });
      assert.deepEqual(names(await index.previewCollection(101, 9)), ["c"]);
      assert.deepEqual(await index.dropUnneededLinks(101, 1), {
        links: 1,
        isEnd: false,
      });
      assert.deepEqual(await index.dropUnneededLinks(101, 9), {
        links: 1,
        isEnd: true,
      });
      assert.deepEqual(await purge(index), ["c"]);
      assert.equal(
        (await index.getLinkedBlob(alpine, named("d")))?.sizeBytes,
        10,
      );
      assert.equal(await index.getLinkedBlob(app, named("d")), undefined);
      assert.deepEqual(await index.dropUnneededLinks(201, 9), {
        links: 1,
        isEnd: true,
      });
      assert.deepEqual(await purge(index), ["b"]);
      assert.equal((await index.getLinkedBlob(app, named("a")))?.sizeBytes, 10);
    });

    void it("keeps a claimed link after the manifests that named it are deleted", async (test) => {
      const index = await make(test);
      await upload(index, app, "a", 10, UNLIMITED, 100);
      await put(index, app, "m", ["a"], ["latest"]);
      await index.claimHostedBlob(app, named("a"), 200);
      await index.deleteHostedManifest(app, named("m"), NEVER);
      await index.dropUnneededLinks(150, 9);
      assert.deepEqual(await purge(index), ["m"]);
      assert.equal(
        (await put(index, app, "n", ["a"], ["latest"])).kind,
        "stored",
      );
      await index.dropUnneededLinks(999, 9);
      assert.deepEqual(await purge(index), []);
      await index.deleteHostedManifest(app, named("n"), NEVER);
      await index.dropUnneededLinks(0, 9);
      assert.deepEqual(await purge(index), ["a", "n"]);
    });

    void it("changes nothing by a preview of the collection", async (test) => {
      const index = await make(test);
      await upload(index, app, "a", 10, UNLIMITED, 100);
      await put(index, app, "m", ["a"], ["latest"]);
      await upload(index, app, "b", 20, UNLIMITED, 100);
      await index.deleteHostedManifest(app, named("m"), NEVER);
      const before = await index.totals();
      for (let round = 0; round < 2; round++) {
        assert.deepEqual(
          (await index.previewCollection(999, 99)).toSorted(
            (a, b) => a.sizeBytes - b.sizeBytes,
          ),
          [
            { digest: named("a"), sizeBytes: 10 },
            { digest: named("b"), sizeBytes: 20 },
            { digest: named("m"), sizeBytes: 1_000 },
          ],
        );
      }
      assert.deepEqual(await index.totals(), before);
      assert.equal(await bytesOf(index, "local"), 30);
      await index.dropUnneededLinks(999, 9);
      assert.deepEqual(await purge(index), ["a", "b", "m"]);
    });

    void it("lists untagged manifests that nothing in the repository names", async (test) => {
      const index = await make(test);
      await put(index, app, "child", [], [], 5);
      await put(index, app, "loose", [], [], 6);
      assert.deepEqual(await untagged(index, app), ["child 5", "loose 6"]);
      await putIndex(index, app, "list", ["child"], ["latest"], 7);
      assert.deepEqual(await untagged(index, app), ["loose 6"]);
      const signature = {
        ...record("signature", [], 8),
        subject: named("list"),
      };
      await putRecord(index, app, signature);
      const orphan = { ...record("orphan", [], 9), subject: named("loose") };
      await putRecord(index, web, orphan);
      assert.deepEqual(await untagged(index, app), ["loose 6"]);
      assert.deepEqual(await untagged(index, web), ["orphan 9"]);
      await put(index, web, "loose", [], ["latest"], 10);
      assert.deepEqual(await untagged(index, web), []);
      await index.deleteHostedManifest(app, named("list"), NEVER);
      assert.deepEqual(
        names(await index.listUntaggedManifests(app, 9, undefined)),
        ["child", "loose", "signature"],
      );
      // The same manifest of another repository names nothing here.
      await put(index, web, "child", [], []);
      await putIndex(index, web, "list", ["child"], ["list"]);
      assert.equal(
        (await index.listUntaggedManifests(app, 9, undefined)).length,
        3,
      );
      const [first] = await index.listUntaggedManifests(app, 1, undefined);
      const rest = await index.listUntaggedManifests(app, 9, first?.digest);
      assert.equal(rest.length, 2);
    });

    void it("lists referrers by page, and by type of artifact", async (test) => {
      const index = await make(test);
      await put(index, app, "m", [], ["latest"]);
      for (const [n, type] of ["sbom", "signature", "sbom"].entries()) {
        await putRecord(index, app, {
          ...record(`r${n}`, []),
          subject: named("m"),
          artifactType: `application/${type}`,
          ...(n === 0 ? { annotations: { order: "first" } } : {}),
        });
      }
      await putRecord(index, web, { ...record("r3", []), subject: named("m") });
      const list = (
        artifactTypes: readonly string[],
        limit = 9,
        last?: Digest,
      ) =>
        index.listHostedReferrers(app, named("m"), {
          artifactTypes,
          limit,
          last,
        });
      const all = await list([]);
      assert.deepEqual(names(all), ["r0", "r1", "r2"]);
      assert.deepEqual(
        all.find(({ digest }) => digest === named("r0")),
        {
          digest: named("r0"),
          sizeBytes: 1_000,
          mediaType: OCI_MANIFEST,
          artifactType: "application/sbom",
          annotations: { order: "first" },
        },
      );
      assert.deepEqual(names(await list(["application/sbom"])), ["r0", "r2"]);
      assert.deepEqual(names(await list(["application/none"])), []);
      const paged: Digest[] = [];
      for (let last: Digest | undefined; ;) {
        const [row] = await list([], 1, last);
        if (row === undefined) break;
        last = row.digest;
        paged.push(row.digest);
      }
      assert.deepEqual(
        paged,
        all.map(({ digest }) => digest),
      );
      assert.equal(
        (
          await index.listHostedReferrers(web, named("m"), {
            artifactTypes: [],
            limit: 9,
            last: undefined,
          })
        ).length,
        1,
      );
      await index.deleteHostedManifest(app, named("r1"), NEVER);
      assert.deepEqual(names(await list([])), ["r0", "r2"]);
    });

    void it("lists a repository as long as it has a manifest", async (test) => {
      const index = await make(test);
      await put(index, app, "m", [], ["latest"]);
      await put(index, keyOf("local", "b"), "m", []);
      await put(index, keyOf("localhost", "c"), "m", []);
      await upload(index, web, "a", 10);
      await index.recordBlob(alpine, blob(named("x"), 10));
      assert.deepEqual(
        await index.listHostedRepositories("local", 9, undefined),
        ["b", "team/app"],
      );
      assert.deepEqual(
        await index.listHostedRepositories("local", 9, repositoryName("b")),
        ["team/app"],
      );
      assert.deepEqual(
        await index.listHostedRepositories("local", 1, undefined),
        ["b"],
      );
      assert.deepEqual(await index.listRepositories(9, undefined), [
        alpine,
        keyOf("local", "b"),
        app,
        keyOf("localhost", "c"),
      ]);
      await index.deleteHostedManifest(app, named("m"), NEVER);
      await index.dropUnneededLinks(999, 9);
      await index.dropUnrooted();
      assert.deepEqual(
        await index.listHostedRepositories("local", 9, undefined),
        ["b"],
      );
      assert.equal((await index.listRepositories(9, undefined)).length, 3);
      assert.equal((await put(index, app, "m", [])).kind, "stored");
      assert.deepEqual(
        await index.listHostedRepositories("local", 9, undefined),
        ["b", "team/app"],
      );
    });

    void it("keeps links of hosted repositories that have no tag", async (test) => {
      const index = await make(test);
      await upload(index, app, "a", 10);
      await put(index, web, "m", []);
      await index.dropUnrooted();
      assert.equal((await index.getLinkedBlob(app, named("a")))?.sizeBytes, 10);
      assert.equal(
        (await index.getLinkedBlob(web, named("m")))?.sizeBytes,
        1_000,
      );
    });

    void it("keeps manifest and tags if a layer is lost, until it is pushed again", async (test) => {
      const index = await make(test);
      await upload(index, app, "a", 10);
      await put(index, app, "m", ["a"], ["latest"]);
      await index.forgetBlob(named("a"));
      assert.equal(await index.getLinkedBlob(app, named("a")), undefined);
      assert.equal((await index.getTag(app, latest))?.digest, named("m"));
      assert.deepEqual(await put(index, app, "m", ["a"], ["latest"]), {
        kind: "missing",
        digest: named("a"),
      });
      assert.equal(
        await index.isComplete(app, named("m"), "repository"),
        false,
      );
      await upload(index, app, "a", 10, UNLIMITED, 100);
      assert.equal(await index.isComplete(app, named("m"), "repository"), true);
      await index.dropUnneededLinks(999, 9);
      assert.equal(await index.isComplete(app, named("m"), "repository"), true);
    });

    void it("links a lost layer again in every repository that needs it when its bytes are stored", async (test) => {
      const index = await make(test);
      for (const key of [app, other]) {
        await upload(index, key, "a", 10);
        await put(index, key, "m", ["a"], ["latest"]);
      }
      await putRecord(
        index,
        web,
        record("foreign", [layer("a", { isForeign: true })]),
      );
      const store = [
        () => index.recordBlob(alpine, blob(named("a"), 10)),
        () => index.adoptBlob(blob(named("a"), 10)),
        () => upload(index, other, "a", 10),
      ];
      for (const again of store) {
        await index.forgetBlob(named("a"));
        assert.equal(await bytesOf(index, "local"), 2_000);
        await again();
        for (const key of [app, other]) {
          assert.equal(
            await index.isComplete(key, named("m"), "repository"),
            true,
          );
        }
        assert.equal(await index.getLinkedBlob(web, named("a")), undefined);
      }
      await index.unlinkHostedBlob(app, named("a"), NEVER);
      await upload(index, other, "a", 10);
      assert.equal(await index.getLinkedBlob(app, named("a")), undefined);
    });

    void it("drops the tags of a lost manifest, and later what only it needed", async (test) => {
      const index = await make(test);
      await upload(index, app, "a", 10);
      await put(index, app, "child", ["a"]);
      await putIndex(index, app, "list", ["child"], ["latest"]);
      assert.deepEqual(await untagged(index, app), []);
      await index.forgetBlob(named("list"));
      assert.equal(await index.getTag(app, latest), undefined);
      assert.deepEqual(
        names(await index.listUntaggedManifests(app, 9, undefined)),
        ["child"],
      );
      await index.forgetBlob(named("child"));
      assert.equal((await index.getLinkedBlob(app, named("a")))?.sizeBytes, 10);
      assert.deepEqual((await index.listOldestRoots(9, undefined)).roots, []);
      await index.dropUnneededLinks(0, 9);
      assert.deepEqual(await purge(index), ["a"]);
      assert.equal((await index.totals()).blobs, 0);
    });

    void it("drops no hosted content as a root", async (test) => {
      const index = await make(test);
      await put(index, app, "m", [], ["latest"]);
      await put(index, app, "n", []);
      const byTag = { kind: "tag", tag: latest } as const;
      const byDigest = { kind: "digest", digest: named("n") } as const;
      assert.equal(await index.dropRoot(app, byTag), false);
      assert.equal(await index.dropRoot(app, byDigest), false);
      await index.removeTag(app, latest);
      for (const reference of [byTag, byDigest]) {
        for (const isPinned of [true, false]) {
          assert.equal(await index.setPinned(app, reference, isPinned), true);
          assert.equal(
            (await index.getRoot(app, reference))?.isPinned,
            isPinned,
          );
          assert.deepEqual(
            (await index.listOldestRoots(9, undefined)).roots,
            [],
          );
        }
      }
      assert.deepEqual(
        (await index.listImages(9, undefined)).images.map(
          ({ digest }) => digest,
        ),
        [named("m"), named("n")],
      );
      await index.setPinned(app, byDigest, true);
      await index.deleteHostedManifest(app, named("n"), NEVER);
      assert.equal(await index.getRoot(app, byDigest), undefined);
      assert.deepEqual(await purge(index), ["n"]);
    });

    void it("lists tags and untagged manifests as images, page by page", async (test) => {
      const index = await make(test);
      for (const key of [app, web]) {
        await put(index, key, "tagged", [], ["a", "b"]);
        await put(index, key, "x", []);
        await put(index, key, "y", []);
        await putIndex(index, key, "list", ["x"], ["c"]);
      }
      const found: string[] = [];
      for (let after = undefined; ;) {
        const page = await index.listImages(2, after);
        for (const { key, reference } of page.images) {
          found.push(
            `${key.repository} ${reference.kind === "tag" ? reference.tag : reference.kind}`,
          );
        }
        if (page.next === undefined) break;
        after = page.next;
      }
      assert.deepEqual(
        found,
        ["app", "web"].flatMap((each) =>
          ["a", "b", "c", "digest"].map(
            (reference) => `team/${each} ${reference}`,
          ),
        ),
      );
    });

    void it("keeps upload sessions until they are dropped", async (test) => {
      const index = await make(test);
      const ids = ["upload-0000000000000001", "upload-0000000000000002"].map(
        uploadId,
      );
      const rows = ids.map((id, n) => ({
        id,
        key: n === 0 ? app : other,
        algorithm: n === 0 ? ("sha256" as const) : ("sha512" as const),
        startedAtMs: 5,
        touchedAtMs: 5,
      }));
      for (const row of rows) await index.putUpload(row);
      const [first, second] = rows;
      assert(first !== undefined && second !== undefined);
      await index.putUpload({ ...first, startedAtMs: 99, touchedAtMs: 6 });
      await index.dropUnrooted();
      const touched = { ...first, touchedAtMs: 6 };
      assert.deepEqual(await index.getUpload(first.id), touched);
      assert.deepEqual(await index.listUploads(9, undefined), [
        touched,
        second,
      ]);
      assert.deepEqual(await index.listUploads(9, first.id), [second]);
      assert.deepEqual(await index.listUploads(1, undefined), [touched]);
      await index.dropUpload(first.id);
      await index.dropUpload(first.id);
      assert.equal(await index.getUpload(first.id), undefined);
      assert.deepEqual(await index.listUploads(9, undefined), [second]);
    });

    void it("deletes a tag or an untagged manifest only if it is unchanged", async (test) => {
      const index = await make(test);
      await put(index, app, "m", [], ["latest"], 5);
      const [read] = await index.listHostedTags(app, 9, undefined);
      assert(read !== undefined);
      await put(index, app, "n", [], ["latest"], 6);
      await put(index, app, "m", [], ["latest"], 7);
      const absent = { kind: "absent" } as const;
      assert.deepEqual(
        await index.deleteHostedTag(app, latest, NEVER, read),
        absent,
      );
      const [now] = await index.listHostedTags(app, 9, undefined);
      assert.equal(
        (await index.deleteHostedTag(app, latest, NEVER, now)).kind,
        "deleted",
      );
      const list = await index.listUntaggedManifests(app, 9, undefined);
      assert.deepEqual(names(list), ["m", "n"]);
      await put(index, app, "n", [], ["latest"], 9);
      for (const row of list) {
        assert.equal(
          (await index.deleteHostedManifest(app, row.digest, NEVER, row)).kind,
          nameOf(row.digest) === "m" ? "deleted" : "absent",
        );
      }
    });

    void it("recalls rows that are current after a push and a deletion", async (test) => {
      const index = await make(test);
      await put(index, app, "m", [], ["latest"]);
      assert.equal((await index.getTag(app, latest))?.digest, named("m"));
      assert.equal(index.recallTag(app, latest)?.digest, named("m"));
      await put(index, app, "n", [], ["latest"]);
      assert.notEqual(index.recallTag(app, latest)?.digest, named("m"));
      await index.getLinkedBlob(app, named("n"));
      await index.deleteHostedManifest(app, named("n"), NEVER);
      assert.equal(index.recallTag(app, latest), undefined);
      assert.equal(index.recallLinkedBlob(app, named("n")), undefined);
    });
  });
}

function upload(
  index: MetadataIndex,
  key: RepositoryKey,
  text: string,
  sizeBytes: number,
  quota = UNLIMITED,
  storedAtMs = 1,
): Promise<HostedBlobOutcome> {
  return index.recordHostedBlob(
    key,
    { digest: named(text), sizeBytes, storedAtMs },
    quota,
  );
}

function mount(
  index: MetadataIndex,
  key: RepositoryKey,
  text: string,
  from: RepositoryKey,
  quota = UNLIMITED,
  atMs = 1,
): Promise<HostedBlobOutcome> {
  return index.mountHostedBlob(key, named(text), from, atMs, quota);
}

function record(
  text: string,
  children: readonly ChildDescriptor[],
  storedAtMs = 1,
  mediaType = OCI_MANIFEST,
): HostedManifestRecord {
  return {
    digest: named(text),
    sizeBytes: 1_000,
    storedAtMs,
    mediaType,
    children,
    subject: undefined,
    artifactType: undefined,
    annotations: undefined,
  };
}

function putRecord(
  index: MetadataIndex,
  key: RepositoryKey,
  manifest: HostedManifestRecord,
  tags: readonly string[] = [],
  {
    quota = UNLIMITED,
    isImmutable = NEVER,
  }: { quota?: QuotaCondition; isImmutable?: (tag: Tag) => boolean } = {},
): Promise<HostedManifestOutcome> {
  return index.putHostedManifest(key, manifest, tags.map(tag), {
    quota,
    isImmutable,
  });
}

function put(
  index: MetadataIndex,
  key: RepositoryKey,
  text: string,
  layers: readonly string[],
  tags: readonly string[] = [],
  atMs = 1,
): Promise<HostedManifestOutcome> {
  return putRecord(
    index,
    key,
    record(
      text,
      layers.map((each) => layer(each)),
      atMs,
    ),
    tags,
  );
}

function putIndex(
  index: MetadataIndex,
  key: RepositoryKey,
  text: string,
  manifests: readonly string[],
  tags: readonly string[] = [],
  atMs = 1,
): Promise<HostedManifestOutcome> {
  return putRecord(
    index,
    key,
    record(text, manifests.map(child), atMs, OCI_INDEX),
    tags,
  );
}

/** Removes everything that is condemned. @returns the names, sorted */
async function purge(index: MetadataIndex): Promise<string[]> {
  const freed: string[] = [];
  for (;;) {
    const found = await index.listCondemned(9, NOTHING);
    if (found.length === 0) return freed.sort();
    freed.push(...names(found));
    await index.forgetCondemned(found.map(({ digest }) => digest));
  }
}

const KNOWN = [
  ..."a b c d m n x y".split(" "),
  "shared",
  "mounted",
  "child",
  "list",
  "loose",
  "orphan",
  "signature",
  "r0",
  "r1",
  "r2",
];

function missing(text: string): HostedManifestOutcome {
  return { kind: "missing", digest: named(text) };
}

function nameOf(digest: Digest | undefined): string {
  return KNOWN.find((text) => named(text) === digest) ?? String(digest);
}

/** Returns the names of these digests, sorted. */
function names(
  rows: readonly ({ readonly digest: Digest } | undefined)[],
): string[] {
  return rows.map((row) => nameOf(row?.digest)).sort();
}

async function untagged(
  index: MetadataIndex,
  key: RepositoryKey,
): Promise<string[]> {
  const rows = await index.listUntaggedManifests(key, 99, undefined);
  return rows
    .map(({ digest, untaggedAtMs }) => `${nameOf(digest)} ${untaggedAtMs}`)
    .sort();
}

async function bytesOf(
  index: MetadataIndex,
  registry: string,
): Promise<number> {
  const rows = await index.listHostedRegistries();
  return rows.find((row) => row.registry === registry)?.bytes ?? 0;
}

function repositoryName(text: string): RepositoryName {
  const parsed = parseRepositoryName(text);
  assert(parsed !== undefined);
  return parsed;
}

function uploadId(text: string): UploadId {
  const id = parseUploadId(text);
  assert(id !== undefined);
  return id;
}
